"""The contract between all roles: messages, masks, packing, topics, metric names, errors. No I/O, no torch."""
