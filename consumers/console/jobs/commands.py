"""The command lines of jobs. Paths are built from ids that the console found itself, never from user input."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from consumers.console.jobs.bundles import BundleChoice
from consumers.console.jobs.quarantine_copies import FOLDER
from consumers.console.jobs.rows import CANDIDATES, Job, JobKind
from consumers.console.jobs.scans import ScanSource
from consumers.console.settings import JobSettings

CLEAN: Final = "clean.npz"
FIGURES: Final = "figures.json"
OUT: Final = "out"
LABELS: Final = "labels"
_COMMANDS: Final = {JobKind.ROLLBACK: "rollback", JobKind.PROMOTE: "promote", JobKind.DISMISS: "dismiss"}
_EVALUATE: Final = (("--evaluate-clean", "evaluate-clean.npz"), ("--evaluate-poisoned", "evaluate-poisoned.npz"))


def arguments_of(
    settings: JobSettings, job: Job, choice: BundleChoice | None, place: Path, source: ScanSource | None = None
) -> list[str]:
    """Return the arguments of a job with the folder `place`. A repair also gets the quarantine in it.

    A candidate with a source is scanned before its rollout.
    """
    if job.kind is JobKind.TEACH:
        name, _, thorough = job.subject.partition(" ")
        options = ["--thorough"] if thorough else []
        return [
            "teach", "train", str(place / LABELS), "--name", name, "--out", str(place / OUT), "--json",
            str(place / FIGURES), "--progress", *options,
        ]  # fmt: skip
    if choice is None:
        # The model that the person saw, and no other one.
        return ["model", _COMMANDS[job.kind], "--only", job.subject, *(settings.rollback or ())]
    replaces = ["--other-classes"] if choice.is_taught else []
    if job.kind in CANDIDATES:
        scan = ["--clean", str(source.file or place / LABELS), "--progress"] if source and source.exists else []
        by_rule = ["--by-rule"] if job.kind is JobKind.CANDIDATE_BY_RULE else []
        return ["model", "candidate", str(choice.place), *scan, *by_rule, *replaces, *(settings.publish or ())]
    if job.kind is JobKind.PUBLISH:
        return ["model", "publish", str(choice.place), *replaces, *(settings.publish or ())]
    found = [
        "lab", "repair", "--bundle", str(choice.place), "--clean", str(settings.folder / CLEAN),
        "--quarantine", str(place / FOLDER), "--out", str(place / OUT), "--json", str(place / FIGURES),
        "--progress",
    ]  # fmt: skip
    for option, name in _EVALUATE:
        if (settings.folder / name).is_file():
            found += [option, str(settings.folder / name)]
    return found
