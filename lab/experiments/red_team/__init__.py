"""Validation of the attacks: agreement with another library, and success on defences that are known to be broken."""
