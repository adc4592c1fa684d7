"""The output of a job: progress, last lines, and the report of a repair."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PICTURES: Final = {
    "clean": "Held-out clean frames",
    "stamped": "The same frames with the trigger found",
    "opacity": "Opacity of the trigger at each pixel",
    "quarantined": "Frames in quarantine",
    "cleansed": "The same frames without the trigger",
}
"""The pictures in a repair's report."""
PICTURES_FOLDER: Final = ".pictures"
"""Their folder next to the report, see `lab.repair.report`, which the console does not import."""
_TAIL: Final = 16 * 1024
_LINES: Final = 20
_LARGEST_REPORT: Final = 2**20


@dataclass(frozen=True)
class Progress:
    """Progress of a job within its phase; `steps` is 0 if the total is unknown."""

    phase: str
    step: int = 0
    steps: int = 0


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, log.stat().st_size - _TAIL))
            return opened.read(_TAIL).decode(errors="replace").splitlines()
    except OSError:
        return []


def progress_of(log: Path) -> Progress | None:
    """Return the last line `{"phase": …, "step": …, "steps": …}` of a log; None if there is none."""
    for line in reversed(_lines(log)):
        if (found := _progress(line)) is not None:
            return found
    return None


def _progress(line: str) -> Progress | None:
    if not line.startswith('{"phase"'):
        return None
    try:
        match json.loads(line):
            case {"phase": str(phase), "step": int(step), "steps": int(steps)}:
                return Progress(phase[:80], max(0, min(step, steps)), max(0, steps))
    except ValueError:
        pass
    return None


def tail_of(log: Path) -> list[str]:
    """Return the last human-readable lines of a log."""
    return [line[:300] for line in _lines(log) if line.strip() and _progress(line) is None][-_LINES:]


def last_message(log: Path) -> str:
    """Return the command's error message, else its last line."""
    lines = tail_of(log)
    complaints = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (complaints or lines or [""])[-1].strip()


@dataclass(frozen=True)
class Report:
    """The report of a repair: figures for people, and the names of its pictures."""

    published: bool
    rows: list[tuple[str, str, str]]
    """Name of a figure, its value before and after."""
    facts: list[tuple[str, str]]
    pictures: list[tuple[str, str]]
    figures: dict[str, Any]


def report_of(figures: Path, out: Path) -> Report | None:
    """Return the report that a repair wrote; None if it wrote none."""
    try:
        with figures.open("rb") as opened:
            found = json.loads(opened.read(_LARGEST_REPORT))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    rows = [_held_out(found, "held_out", "correct on held-out clean frames")]
    rows.append(_held_out(found, "chosen_by", "correct on the clean frames that selected the weights"))
    rows += [
        (name, _share(_in(found, key, "before")), _share(_in(found, key, "after")))
        for key, name in (
            ("clean_accuracy", "clean accuracy, independent measurement"),
            ("attack_success", "attack success, independent measurement"),
        )
    ]
    rows.append(
        (
            "attack success after further training without the trigger",
            "",
            _share(_in(found, "fine_tune_only", "attack_success")),
        )
    )
    facts = [
        ("target class", _text(found.get("target_class"))),
        ("method", _text(found.get("method"))),
        ("trigger", _text(found.get("trigger"))),
        ("frames in quarantine", _text(found.get("quarantined"))),
        ("used for training", _text(found.get("learned_from"))),
        ("accuracy on pictures with the trigger, after the repair", _share(found.get("recovered_accuracy"))),
        ("seconds", _text(found.get("seconds"))),
    ]
    pictures = [(name, words) for name, words in PICTURES.items() if (out / PICTURES_FOLDER / f"{name}.png").is_file()]
    return Report(found.get("published") is True, rows, facts, pictures, found)


@dataclass(frozen=True)
class TeachReport:
    """The report of a training from labels: held-out verdicts in words and numbers."""

    summary: str
    columns: list[str]
    rows: list[tuple[str, list[int]]]
    """A class, and the number of its labels by verdict; the last column counts unsure ones."""
    worst: list[tuple[str, str, str]]
    """File, label and verdict of the least likely labels."""
    advice: list[str]


def teach_report_of(figures: Path) -> TeachReport | None:
    """Return the report that a training wrote; None if it wrote none."""
    try:
        with figures.open("rb") as opened:
            found = json.loads(opened.read(_LARGEST_REPORT))
        right, classes = found["right"], [str(name) for name in found["classes"]]
        summary = (
            f"{_share(right['value'])} of {sum(found['labels'])} labels are right when held out "
            f"({_share(right['low'])} to {_share(right['high'])}); {_share(found['unsure'])} read unsure. "
            "The same labels chose the settings, so these shares are somewhat too good. "
            f"Trained in {found['seconds']:.0f} s: {found['head']}."
        )
        rows = [(name, [int(each) for each in row]) for name, row in zip(classes, found["confusion"], strict=True)]
        worst = [(str(each["file"]), str(each["label"]), str(each["verdict"])) for each in found["worst"]]
        return TeachReport(summary, [*classes, "unsure"], rows, worst, [str(each) for each in found["advice"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in(found: dict[str, Any], key: str, name: str) -> Any:
    inner = found.get(key)
    return inner.get(name) if isinstance(inner, dict) else None


def _held_out(found: dict[str, Any], key: str, name: str) -> tuple[str, str, str]:
    match found.get(key):
        case {"count": int(count), "right_before": int(before), "broken": int(broken), "mended": int(mended)}:
            return name, f"{before} of {count}", f"{before - broken + mended} of {count}"
    return name, "–", "–"


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) and not isinstance(value, bool) else "not measured"


def _text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else "–" if value is None else str(value)[:200]
