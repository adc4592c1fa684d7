"""Certified labels under stickers: networks, fillings of the windows, and sizes of the sticker."""
