"""The terminal to which commands print."""

from __future__ import annotations

from typing import Any

import rich.console


class Console(rich.console.Console):
    """Rich's console, which prints `:a:` as it stands: addresses contain such text, and rich takes it for an emoji."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)
