"""`pointillist camera run` with real streams: effects of failing cameras on the others, and the fate of every frame."""
