"""Video of enrolled cameras decoded in worker processes without network, files or other rights."""
