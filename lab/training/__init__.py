"""The commands that train the shipped networks."""
