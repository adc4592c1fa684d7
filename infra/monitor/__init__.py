"""The role `monitor`: metrics of what has none of its own, brokers, machine and GPUs, and of the audit."""
