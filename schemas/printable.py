"""Text of others without the characters that act on a terminal."""

from __future__ import annotations

import re
from typing import Final

_UNPRINTABLE: Final = re.compile(
    r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028-\u202e\u2066-\u2069]"
)
"""Control characters and all that YAML does not allow. U+2028 and U+2029 are line breaks of YAML, U+202A to U+202E and
U+2066 to U+2069 change the direction of the text."""

_BREAKS: Final = re.compile(r"[\t\r\n]+")


def printable(text: str, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """Return `text` with `instead` for each control character: an escape sequence may write to the clipboard.

    Line breaks and tabs become spaces.
    """
    return _UNPRINTABLE.sub(instead, _BREAKS.sub(" ", text))
