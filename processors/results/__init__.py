"""Results: verdicts, records and their delivery to Kafka."""
