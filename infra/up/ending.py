"""The last line of a run: every non-zero count of the conservation law, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FATES: Final = {
    "frames_recorded": "recorded",
    "frames_dead_lettered": "dead-lettered",
    "frames_shed": "shed",
    "frames_pending": "pending",
    "frames_lost": "lost",
    "frames_unread": "unread",
}
"""The fates of a published frame: each has exactly one."""


def closing_line(report: Mapping[str, Any], away_s: Mapping[str, float], file: Path | None) -> str:
    """Format `4,195 published = 4,195 recorded. Nothing lost. 1 restart (processor-1, 6 s). Report: FILE`.

    `away_s` has the downtime of each restarted role in seconds.
    """
    fates = [f"{report[key]:,} {called}" for key, called in _FATES.items() if report[key]]
    sentences = [f"{report['frames_published']:,} published = {' + '.join(fates) or '0 recorded'}."]
    if not (report["frames_lost"] or report["frames_pending"] or report["frames_unread"]):
        sentences.append("Nothing lost.")
    if report["frames_foreign"] > 0:
        sentences.append(f"{report['frames_foreign']:,} foreign payloads rejected.")
    restarts: Mapping[str, int] = report["restarts"]
    if restarts:
        each = [
            f"{name}{f' {count} times' if count > 1 else ''}, {away_s.get(name, 0.0):.0f} s"
            for name, count in restarts.items()
        ]
        total = sum(restarts.values())
        sentences.append(f"{total} {'restart' if total == 1 else 'restarts'} ({'; '.join(each)}).")
    if file is not None:
        sentences.append(f"Report: {file}")
    return " ".join(sentences)
