"""TOML of others: the time of its parse is bounded, whatever the text."""

from __future__ import annotations

import re
import tomllib
from itertools import accumulate
from typing import Any, Final

_MOST_DOTS: Final = 16
"""Maximum number of dots in a key: tomllib's time grows with their square."""
_MOST_NESTED: Final = 64
"""Maximum depth of arrays and inline tables: tomllib recurses into each."""
_TEXT: Final = re.compile(
    r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{0,5}'
    r"|'''(?:[^']++|'{1,2}(?!'))*+'{0,5}"
    r'|"(?:[^"\\\n]++|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
"""A string or a comment. One without an end reaches to the end of the text or line, where tomllib rejects it."""
_KEY: Final = re.compile(r"[\w. \t-]++")
"""Characters of a dotted key whose strings are replaced by a letter."""
_BRACKET: Final = re.compile(r"[\[\]{}]")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML text.

    Raises ValueError for any other text, for a key of too many dots and for values that are nested too deeply.
    """
    bare = _TEXT.sub("s", text)
    dots = max((found.group().count(".") for found in _KEY.finditer(bare)), default=0)
    if dots > _MOST_DOTS:
        raise ValueError(f"a key with {dots} dots instead of at most {_MOST_DOTS}")
    depth = max(accumulate(1 if each in "[{" else -1 for each in _BRACKET.findall(bare)), default=0)
    if depth > _MOST_NESTED:
        raise ValueError(f"values of {depth} levels instead of at most {_MOST_NESTED}")
    return tomllib.loads(text)
