"""Connections to the brokers: TLS and logins, retries, and the one layer over Kafka."""
