"""Keys: derivation from the fleet secret, signing, sealing and trusted signers."""
