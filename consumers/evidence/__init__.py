"""Evidence in the database: chains of verdicts, alerts, quarantine and the probe plan."""
