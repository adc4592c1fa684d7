"""Other ways of curing a sick model with the same 500 clean pictures."""
