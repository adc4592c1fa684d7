"""Backdoor repair: learn the trigger from quarantined frames, make the network unlearn it (CoDefend, section 3.4)."""
