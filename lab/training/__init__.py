"""The commands that train the networks which ship."""
