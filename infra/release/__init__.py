"""The release: the console's assets and the contents of the wheel."""
