"""`pointillist up`: the whole system on this machine, from brokers to cameras, with one command."""
