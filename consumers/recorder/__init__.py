"""The recorder: Kafka records to database rows, alerts and metrics, in one transaction with the offsets."""
