"""The list of pages, with the function that makes each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from infra.reference.architecture import architecture
from infra.reference.camera_files import cameras_file, scenario
from infra.reference.command_line import command_line
from infra.reference.decisions import decisions
from infra.reference.metrics import metrics
from infra.reference.model_toml import model_toml
from infra.reference.report import report
from infra.reference.rest import rest
from infra.reference.rights import rights
from infra.reference.settings import settings
from infra.reference.wire_format import wire_format
from infra.settings.json_schema import NAMES, written_schema

DOCS: Final = Path(__file__).parents[2] / "docs"

PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/architecture.md": architecture,
    "reference/command-line.md": command_line,
    "reference/settings.md": settings,
    "reference/scenario.md": scenario,
    "reference/cameras-file.md": cameras_file,
    "reference/model-toml.md": model_toml,
    "reference/metrics.md": metrics,
    "reference/report.md": report,
    "reference/rest.md": rest,
    "reference/rights.md": rights,
    "reference/wire-format.md": wire_format,
    "adr/README.md": decisions,
    **{f"reference/schemas/{name}.json": partial(written_schema, name) for name in NAMES},
}
"""The pages by their paths in `docs`."""


def out_of_date() -> list[str]:
    """Return the pages that differ from the code."""
    return [name for name, make in PAGES.items() if _written(DOCS / name) != make()]


def _written(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def write() -> None:
    """Write all pages to their paths."""
    for name, make in PAGES.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(make(), encoding="utf-8")
