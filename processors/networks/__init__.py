"""Networks of classifiers and of the reconstruction, and their execution by oneDNN and OpenVINO."""
