"""Backdoor repair: learn the trigger from quarantined frames, then make the network unlearn it, or their labels.

Source: CoDefend, section 3.4.
"""
