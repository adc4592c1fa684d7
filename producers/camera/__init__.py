"""One camera: capture, sealing, pace and fairness on a shared event loop."""
