"""The REST API of the console: routes, jobs, and its OpenAPI document."""
