"""Work on the device: batches, fairness, compiled pipelines and STRIP's queue."""
