"""Connections to brokers and stores: TLS and logins, retries, Kafka, MQTT, HTTP and object stores."""
