"""Everything around the roles: command line, local brokers, compose, metrics pages, dashboards."""
