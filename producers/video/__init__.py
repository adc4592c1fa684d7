"""The profile `video` at the camera: dropped pixels filled, then a standard codec, in groups of pictures."""
