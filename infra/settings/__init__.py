"""Settings of the roles: read from options, the environment and a file; shown, documented and written."""
