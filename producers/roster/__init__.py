"""Real cameras by the dozen: a file that says which there are, and a process that follows it."""
