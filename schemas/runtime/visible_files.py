"""The files below a folder without hidden ones, such as thumbnails and a trash."""

from __future__ import annotations

from pathlib import Path


def visible_files(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted, without those that are hidden or in a hidden sub-folder."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
