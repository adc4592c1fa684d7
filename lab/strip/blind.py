"""Refusal of a p-value that no frame can fall below, and the strip table of a bundle before such a calibration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.strip.table import replace_file
from processors.bundle import StripSettings, read_settings
from processors.stages.rarity import MOST_OCTAVES
from schemas.errors import ConfigError


def is_blind(strip: StripSettings) -> bool:
    """Return whether no frame can have a p-value below the threshold of `strip.combined`."""
    return strip.combined is not None and strip.combined.threshold <= 2**-MOST_OCTAVES


def check_threshold(strip: StripSettings) -> None:
    """Raise ConfigError if no frame would be suspect under `strip.combined`."""
    if strip.combined is not None and is_blind(strip):
        raise ConfigError(
            f"clean pictures: expected a threshold above the least p-value of a frame, 2^-{MOST_OCTAVES:g}, got "
            f"{strip.combined.threshold:g}: no frame would be suspect. Calibrate again with more pictures or a larger "
            "--frr."
        )


@contextmanager
def restoring_table(folder: Path) -> Iterator[None]:
    """Restore the bundle's `model.toml` and the files of its strip table if the block raises ConfigError."""
    strip = read_settings(folder).strip
    # The table last: it names the other files.
    names = [*(() if strip is None else sorted(strip.files)), "model.toml"]
    before = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    try:
        yield
    except ConfigError:
        refused = read_settings(folder).strip
        for name, content in before.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                replace_file(folder / name, content)
        for name in () if refused is None else refused.files - before.keys():
            (folder / name).unlink(missing_ok=True)
        raise
