"""Other methods of repairing a backdoored model with the same 500 clean pictures."""
