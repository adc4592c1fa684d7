"""Numbers of variable length, as protobuf and MQTT (MQTT 5.0, section 1.5.5) write them."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Encode a number from 0: seven bits a byte, lowest first; the top bit is set in all bytes but the last."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes((*digits, value))
