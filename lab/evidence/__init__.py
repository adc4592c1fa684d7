"""Evidence in the laboratory: the alert rule on recorded verdicts."""
