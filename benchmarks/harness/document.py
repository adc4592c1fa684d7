"""The result of a benchmark, printed and saved."""

from __future__ import annotations

import json
from pathlib import Path


def tell(document: object, file: Path | None) -> None:
    """Print `document` as JSON, and write the same to `file`."""
    text = json.dumps(document, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")
