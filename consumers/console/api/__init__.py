"""The REST API of the console: its operations and its OpenAPI document."""
