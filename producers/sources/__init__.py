"""Where a camera's pictures come from: simulated scenes, a data set, a video file, any URL."""
