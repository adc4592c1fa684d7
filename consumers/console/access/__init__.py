"""Access to the console: connections, hosts, sessions, users and passwords."""
