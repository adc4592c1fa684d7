"""The real parts run on this machine: processes, ports, brokers, all on loopback and in one state folder."""
