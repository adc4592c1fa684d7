"""MQTT 5 packets that are written without a client (OASIS MQTT 5.0, section 2.1)."""

from __future__ import annotations

from schemas.varint import varint


def packet(first: int, body: bytes) -> bytes:
    """Return a packet: its first byte, the length of the body, the body."""
    return bytes((first,)) + varint(len(body)) + body


def text(raw: bytes) -> bytes:
    """Return a string or binary data with its length in front."""
    return len(raw).to_bytes(2, "big") + raw
