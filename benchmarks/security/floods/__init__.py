"""Floods of the console by strangers and viewers, and the pages that other visitors load at the same time."""
