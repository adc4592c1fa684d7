"""What validates the attacks: the same figures as another library's, and defences that are known to be broken."""
