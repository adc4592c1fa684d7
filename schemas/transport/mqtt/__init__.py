"""MQTT connections: the one driver on the event loop, and clients in a thread. Only this package uses paho."""
