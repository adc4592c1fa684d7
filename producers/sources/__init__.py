"""Sources of a camera's pictures: simulated scenes, a data set, a video file, any URL."""
