"""Contact sheet of pictures along their path: as filmed, as sent with holes, rebuilt, and as the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from infra.bundling.check import PictureComparison
from infra.state_folder import regular_file, writing
from schemas.runtime.atomic_file import replacing

COLUMNS: Final = ("as filmed", "as sent", "rebuilt", "to the network")
_CELL: Final = 192
_CAPTION: Final = 32
_GAP: Final = 8
_INK: Final = "#202020"


def write_sheet(shown: Sequence[PictureComparison], file: Path) -> None:
    """Draw the pictures into a PNG, one row each. The target of a symbolic link is written. Raises ConfigError."""
    step = _CELL + _GAP
    sheet = Image.new("RGB", (len(COLUMNS) * step + _GAP, _CAPTION + len(shown) * (step + _CAPTION) + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        pen.text((_GAP + column * step, _GAP), title, fill=_INK)
    for row, each in enumerate(shown):
        top = _CAPTION + row * (step + _CAPTION)
        for column, picture in enumerate((each.original, each.sent, each.rebuilt, each.seen)):
            sheet.paste(_fitted(picture), (_GAP + column * step, top))
        captions = {0: f"{each.file}\n{_caption(each.whole)}", 3: f"after the drop\n{_caption(each.dropped)}"}
        for column, text in captions.items():
            pen.text((_GAP + column * step, top + _CELL + 2), text, fill=_INK, spacing=2)
    with writing("--sheet", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(regular_file(file)) as fresh:
            sheet.save(fresh, format="PNG")


def _caption(verdict: tuple[str, float]) -> str:
    name, confidence = verdict
    return f"{name[:24]} {confidence:.0%}"


def _fitted(picture: NDArray[np.uint8]) -> Image.Image:
    """Fit (H, W, C) into a cell; small ones are enlarged without smoothing, which keeps holes visible."""
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
    scale = _CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)
