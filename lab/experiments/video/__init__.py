"""The adaptive attack through the codec of the profile `video`: `docs/results/video`."""
