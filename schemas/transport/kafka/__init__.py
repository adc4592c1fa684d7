"""The one layer over aiokafka: a reader, a sender and an administrator, which survive brokers that fail or hang."""
