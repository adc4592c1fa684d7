"""The audit: a count of every published frame, from spools, Kafka and the database."""
