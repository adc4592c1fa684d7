"""`pointillist camera run` with real streams: who misses frames when others fail, and what became of every frame."""
