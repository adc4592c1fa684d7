"""The shipped dashboards: their folder, and the console to which they link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "dashboards"


def linked(console: str | None) -> dict[str, str]:
    """Return the JSON of each dashboard by its file's name, with links to this console; None keeps the links."""
    return {file.name: _linked(file.read_text(), console) for file in sorted(FOLDER.glob("*.json"))}


def _linked(dashboard: str, console: str | None) -> str:
    document: dict[str, Any] = json.loads(dashboard)
    for variable in document["templating"]["list"]:
        if console is not None and variable["name"] == "console":
            variable["query"] = console
            variable["current"] = {"text": console, "value": console}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
