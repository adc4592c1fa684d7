"""The terminal to which commands print."""

from __future__ import annotations

from typing import Any, Final

import rich.console

_USUAL_COLUMNS: Final = 80


class Console(rich.console.Console):
    """Rich's console, which prints `:a:` as it stands: addresses contain such text, and rich takes it for an emoji."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)
        if not self.width:  # COLUMNS=0, of a terminal without a size: rich would print nothing
            self.width = _USUAL_COLUMNS

    def print_line(self, line: str) -> None:
        """Print a line without markup or colours."""
        self.print(line, markup=False, highlight=False)
