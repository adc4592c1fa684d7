"""Cameras as an operator manages them: roster, identity, processes, rates and ONVIF discovery."""
