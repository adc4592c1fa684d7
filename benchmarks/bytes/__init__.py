"""Bytes and CPU time of a camera's profiles compared with JPEG and H.264 at equal quality of the displayed picture."""
