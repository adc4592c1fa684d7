"""The role `monitor`: metrics of brokers, machine and GPUs, which have none of their own, and of the audit."""
