"""Home Assistant: cameras and alerts by MQTT discovery."""
