"""Bundles that jobs may work on: only those of the operator's folder and of earlier jobs, each by an id."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = "model.toml"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,79}")
_LARGEST_TABLE: Final = 2**20
_MOST: Final = 200
OWN: Final = "own"


@dataclass(frozen=True)
class Choice:
    """One bundle. `label` is what people read; `place` never leaves this process but to a job."""

    choice_id: str
    label: str
    place: Path
    name: str
    """`NAME@VERSION` as its table says, which begins its model id; empty when that cannot be read."""


def laid_down(folder: Path) -> list[Choice]:
    """The bundles in the operator's folder, by their names."""
    try:
        found = sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name))
    except OSError:
        return []
    return _whole([(f"bundle-{name}", name, folder / name) for name in found[:_MOST]])


def repaired(runs: Iterable[tuple[str, str, Path]]) -> list[Choice]:
    """What repairs have made: of the id of each job, what it repaired, and where its bundle is."""
    return _whole([(f"job-{job_id}", f"{subject}, repaired by job {job_id}", place) for job_id, subject, place in runs])


def own(place: Path | None) -> list[Choice]:
    """What processors serve by themselves."""
    return _whole([(OWN, "the processors' own", place)]) if place is not None else []


def _whole(found: list[tuple[str, str, Path]]) -> list[Choice]:
    return [Choice(*each, named(each[2])) for each in found if (each[2] / TABLE).is_file()]


def named(bundle: Path) -> str:
    """See `Choice.name`."""
    try:
        with (bundle / TABLE).open("rb") as opened:
            table = tomllib.loads(opened.read(_LARGEST_TABLE).decode())
    except (OSError, ValueError):  # also what is no TOML
        return ""
    name, version = table.get("name"), table.get("version")
    return f"{name[:80]}@{version[:80]}" if isinstance(name, str) and isinstance(version, str) else ""
