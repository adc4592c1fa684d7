"""The chain at the network's scale: accuracy and cost, compared with rebuilding whole frames (ADR 16)."""
