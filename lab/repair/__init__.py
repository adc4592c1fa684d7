"""Backdoor repair: learn the trigger from quarantined frames, then make the network unlearn it.

Source: CoDefend, section 3.4.
"""
