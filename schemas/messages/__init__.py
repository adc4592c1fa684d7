"""Messages on the wire: frames, ledgers, camera status, server messages, dead letters and models."""
