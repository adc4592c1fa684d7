"""The reference of the JSON that `up --report` and `audit --json` write, from its classes."""

from __future__ import annotations

from typing import Final

from consumers.conservation.balance import Counts, LostFrames
from infra.audit.report import AttackedCamera, Findings, Latency, Run, RunFigures
from infra.reference.markdown import code, page, paragraphs, table
from infra.settings.described import fields_of

_HEAD: Final = """\
Every count is of durable records: the database, Kafka's log files, the spools. `pointillist up --report FILE` writes
one JSON object with [the counts](#counts), [what was measured](#measured) and [of the run](#run); `pointillist audit
--json` prints one with the counts and [the findings](#findings).
"""


def report() -> str:
    """Return the page."""
    return page(
        "The report of a run, and of an audit",
        _HEAD,
        fields("Counts", Counts),
        fields("Measured", RunFigures),
        fields("`latency_s`", Latency, level=3),
        fields("`attacked_by_camera`", AttackedCamera, level=3),
        fields("Run", Run),
        fields("Findings", Findings),
        fields("`lost`", LostFrames, level=3),
    )


def fields(title: str, described: type, level: int = 2) -> str:
    """Return a section with the fields of a JSON object."""
    rows = [(code(name), kind, meaning) for name, kind, meaning in fields_of(described)]
    return "\n\n".join(
        (f"{'#' * level} {title}", paragraphs(described.__doc__), table(("key", "type", "meaning"), rows))
    )
