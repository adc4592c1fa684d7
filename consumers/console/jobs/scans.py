"""The clean pictures of a candidate's backdoor scan: people's labels, the operator's file, or none with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from consumers.console.jobs.bundles import BundleChoice

FEWEST_PICTURES: Final = 50
FEWEST_CLASSES: Final = 3
FEWEST_OTHERS: Final = 10
"""Bounds of `lab.repair.scan`, which the console does not import: pictures, classes, and pictures of other classes."""
GRAPHS: Final = ("onnx", "tflite")
"""Formats of networks without gradients. The scan needs gradients."""


class ScanSource(NamedTuple):
    """The source of the pictures: labels, a file, or neither and what to do about it."""

    labels: bool = False
    file: Path | None = None
    lack: str = ""

    @property
    def exists(self) -> bool:
        """Whether there are clean pictures."""
        return not self.lack


def scan_source(choice: BundleChoice, labels: Mapping[str, int], file: Path) -> ScanSource:
    """Return the source of clean pictures for a bundle, from the number of labels of each class.

    Labels by the names of its classes are those of its own cameras. If they are enough, they go before the operator's
    `file`, which numbers the classes of another bundle. Labels that trained a bundle serve too: the scan measures no
    accuracy, and it leaves out the pictures of the class that it searches, also those that an attacker has stamped and
    had labelled so.
    """
    if choice.format in GRAPHS:
        return ScanSource(lack=f"a scan needs gradients, and a network of the format {choice.format} has none")
    if choice.classes and len(choice.classes) < FEWEST_CLASSES:
        return ScanSource(lack=f"a scan compares at least {FEWEST_CLASSES} classes")
    counts = [labels.get(name, 0) for name in choice.classes]
    if counts and all(counts) and sum(counts) >= FEWEST_PICTURES and sum(counts) - max(counts) >= FEWEST_OTHERS:
        return ScanSource(labels=True)
    if choice.is_taught:
        return ScanSource(
            lack=f"label at least {FEWEST_PICTURES} frames of its classes, {FEWEST_OTHERS} of them not of the "
            "largest class"
        )
    if file.is_file():
        return ScanSource(file=file)
    return ScanSource(lack=f"put clean labelled pictures as {file.name} into the jobs folder")
