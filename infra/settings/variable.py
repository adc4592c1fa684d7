"""Texts of the form env:NAME, which stand for the URL in the environment variable NAME."""

from __future__ import annotations

import os
from typing import Final

PREFIX: Final = "env:"
HIDDEN_URL: Final = "POINTILLIST_URL_"
"""Prefix of the variables with the URLs of a command's own arguments; a number follows."""


def resolve(text: str) -> str:
    """Return the URL behind env:NAME; any other text, and the name of an absent variable, stays as it is."""
    if text.startswith(PREFIX):
        return os.environ.get(text.removeprefix(PREFIX), text)
    return text
