"""Times as text for people."""

from __future__ import annotations

from datetime import UTC, datetime


def format_utc(at_ms: int | None) -> str:
    """Format a Unix time in milliseconds. None, 0 and times that no calendar has are a dash."""
    if not at_ms:
        return "–"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "–"
