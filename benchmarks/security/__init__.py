"""Security: attacks, floods, eavesdroppers, and the cost of TLS and rights."""
