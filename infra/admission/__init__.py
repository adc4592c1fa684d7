"""Admission to a fleet and its end: a camera's key, certificate and rights; revocation of cameras and roles."""
