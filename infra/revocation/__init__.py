"""Revocation of certificates: of cameras and of roles."""
