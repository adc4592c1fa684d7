"""The red team before a camera: a shipped generator changes what the lens sees, before any pixel is dropped."""
