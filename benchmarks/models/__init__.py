"""Models: backdoors, the red team and networks of users, measured live."""
