"""Bytes and CPU time of a camera's profiles beside JPEG and H.264 at equal quality of the picture that is shown."""
