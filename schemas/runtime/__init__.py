"""Runtime parts that every role shares: atomic files, health, throttling, disks and traces."""
