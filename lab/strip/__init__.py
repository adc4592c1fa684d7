"""STRIP in the laboratory: calibration and its statistics."""
