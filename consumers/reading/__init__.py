"""Kafka records as rows: batches, the log they are read from, and group membership."""
