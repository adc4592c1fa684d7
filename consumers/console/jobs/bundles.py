"""The bundles that jobs may use, each by an id: the operator's folder and the results of earlier jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from consumers.console.jobs.rows import Job, JobKind
from schemas.toml import parse_toml

TABLE: Final = "model.toml"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,79}")
_LARGEST_TABLE: Final = 2**20
_MOST: Final = 200
OWN: Final = "own"
_TAUGHT: Final = ", taught by job "


@dataclass(frozen=True)
class BundleChoice:
    """One bundle. `label` is for people; `place` leaves this process only to a job."""

    choice_id: str
    label: str
    place: Path
    name: str
    """`NAME@VERSION` from its table, the beginning of its model id; empty if it cannot be read."""
    classes: tuple[str, ...] = ()
    """The names of its classes; empty if they cannot be read."""
    is_taught: bool = False
    """Whether a training from labels made it, or a repair of such a bundle. Its classes replace the live model's."""
    format: str = ""
    """The file format of its weights, such as `onnx`; empty if it cannot be read."""


def operator_bundles(folder: Path) -> list[BundleChoice]:
    """Return the bundles in the operator's folder, sorted by name."""
    try:
        found = sorted(each.name for each in folder.iterdir() if _NAME.fullmatch(each.name))
    except OSError:
        return []
    return _existing([(f"bundle-{name}", name, folder / name) for name in found[:_MOST]])


def job_bundles(jobs: Iterable[Job], folder_of: Callable[[Job], Path]) -> list[BundleChoice]:
    """Return the bundles that repairs and trainings have made; `folder_of` a job has its result.

    The label of a repaired bundle begins with that of its source, whose own job may be deleted by now.
    """
    origins = {JobKind.REPAIR: ", repaired by job ", JobKind.TEACH: _TAUGHT}
    made = [(f"job-{job.job_id}", f"{job.subject}{origins[job.kind]}{job.job_id}", folder_of(job)) for job in jobs]
    return [replace(choice, is_taught=_TAUGHT in choice.label) for choice in _existing(made)]


def default_bundle(place: Path | None) -> list[BundleChoice]:
    """Return the bundle that processors serve by default."""
    return _existing([(OWN, "default bundle of the processors", place)]) if place is not None else []


def _existing(found: list[tuple[str, str, Path]]) -> list[BundleChoice]:
    return [_choice(*each) for each in found if (each[2] / TABLE).is_file()]


def _choice(choice_id: str, label: str, bundle: Path) -> BundleChoice:
    """Return the choice of a bundle with the facts in its table."""
    try:
        with (bundle / TABLE).open("rb") as opened:
            table = parse_toml(opened.read(_LARGEST_TABLE).decode())
    except (OSError, ValueError):
        return BundleChoice(choice_id, label, bundle, "")
    name, version, classes = table.get("name"), table.get("version"), table.get("classes")
    named = f"{name[:80]}@{version[:80]}" if isinstance(name, str) and isinstance(version, str) else ""
    names = tuple(map(str, classes)) if isinstance(classes, list) else ()
    return BundleChoice(choice_id, label, bundle, named, names, format=str(table.get("format", ""))[:80])
