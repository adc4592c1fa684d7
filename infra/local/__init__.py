"""The real brokers and servers on this machine: processes and ports, all on loopback and in one state folder."""
