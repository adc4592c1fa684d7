"""Preflight checks: whether brokers, database and Kafka rights are as a role needs them."""
