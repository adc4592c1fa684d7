"""Identities of a fleet: its own authority, the roles' and cameras' certificates, and their rights."""
