"""Teaching: a classifier from a few dozen labelled pictures, trained through the chain that runs live."""
