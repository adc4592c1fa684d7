"""The reference pages: equal to the text generated from the code, and complete."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from consumers.console.api.routes import OPERATIONS
from infra.reference import pages
from infra.reference.__main__ import main
from infra.reference.camera_files import cameras_file, scenario
from infra.reference.command_line import command_line
from infra.reference.metrics import metrics
from infra.reference.pages import PAGES
from infra.reference.report import report
from infra.reference.rest import rest
from infra.reference.wire_format import wire_format
from processors.bundle import BundleSettings
from producers.fleet.camera_file import CameraFile
from producers.simulation.scenario import Scenario
from producers.sources.settings import SourceSettings, keys_of
from schemas import pointillist_pb2
from schemas.topics import Channel, KafkaTopic
from tests.infra.command_line import commands

ROOT = Path(__file__).parents[2]
# The tests share the generated pages, and the page of the architecture shares parsed imports with other tests.
pytestmark = pytest.mark.xdist_group("architecture")


@cache
def page_text(name: str) -> str:
    """Return the generated text of a page, cached because some take seconds."""
    return PAGES[name]()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_equals_the_generated_text(name: str) -> None:
    assert (pages.DOCS / name).read_text(encoding="utf-8") == page_text(name), "`make reference` generates it"


@pytest.mark.parametrize("name", PAGES)
def test_every_key_field_and_option_has_a_description(name: str) -> None:
    """Except the wire format from the check: a field such as `width` of a frame needs no description."""
    rows = [line for line in page_text(name).splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert name == "reference/wire-format.md" or [row for row in rows if row.endswith("|  |")] == []


def test_the_page_of_the_command_line_has_every_command_and_option() -> None:
    page = command_line()
    for words, command in commands().items():
        name = " ".join(("pointillist", *words))
        section = re.split(rf"^#+ `{name}`$", page, flags=re.MULTILINE)[-1] if " " in name else page
        for option in (each for each in command.params if each.param_type_name == "option" and not each.hidden):
            assert all(f"`{each}`" in section for each in option.opts), f"{name} {option.opts}"


def test_a_switch_with_a_default_by_machine_has_no_documented_default() -> None:
    for name, default in (("compile", ""), ("show", ""), ("combined", "`--no-combined`")):
        row = rf"^\| `--{name}`, `--no-{name}` \| *\| *(.*?) *\|"
        assert re.findall(row, page_text("reference/command-line.md"), re.MULTILINE) == [default]


def test_the_pages_of_camera_files_have_every_key() -> None:
    real = cameras_file()
    simulated = SourceSettings.model_fields.keys() - keys_of("url") - keys_of("video")
    assert "seed" in simulated
    assert [key for key in simulated if f"| `{key}` |" in real] == []  # simulated sources are rejected there
    assert missing_keys(real, CameraFile) - simulated == set()
    assert missing_keys(scenario(), Scenario) == set()


def test_the_page_of_model_toml_has_every_key() -> None:
    page = page_text("reference/model-toml.md")
    assert missing_keys(page, BundleSettings) == {"stage"}  # each stage has a heading
    assert '### `stage = "jpeg"`' in page


def missing_keys(page: str, kind: Any) -> set[str]:
    """Return the keys of a model, and of the models in it, that have neither a row nor a heading."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {key for each in get_args(kind) for key in missing_keys(page, each)}
    found = {key for info in kind.model_fields.values() for key in missing_keys(page, info.annotation)}
    own = {info.alias or name for name, info in kind.model_fields.items()}
    return found | {key for key in own if not re.search(rf"^(\| `{key}` \||## .*\b{key}\]+`$)", page, re.MULTILINE)}


def test_the_page_of_metrics_has_every_metric() -> None:
    source = (ROOT / "schemas" / "metrics.py").read_text()
    assert set(re.findall(r'"(pointillist_\w+)"', source)) == set(re.findall(r"`(pointillist_\w+)`", metrics()))


def test_the_page_of_the_report_has_every_written_key() -> None:
    source = ast.parse((ROOT / "infra" / "audit" / "report.py").read_text())
    names = {
        field.target.id for kind in source.body if isinstance(kind, ast.ClassDef)
        for field in kind.body if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }  # fmt: skip
    assert len(names) > 25
    page = report()
    assert {name for name in names if f"| `{name}` |" not in page} == set()


def test_the_pages_have_every_operation_message_and_topic() -> None:
    page = rest()
    assert [each.path for each in OPERATIONS if f"### `{each.method} {each.path}`" not in page] == []
    page = wire_format()
    assert [name for name in pointillist_pb2.DESCRIPTOR.message_types_by_name if f"### `{name}`" not in page] == []
    assert [topic for kind in (Channel, KafkaTopic) for topic in kind if f"| `{topic.value}` |" not in page] == []
    assert "below 2^63" in page  # a comment of the file
    values = [each for operation in OPERATIONS for each in (operation.query, (operation.body or {}).get("properties"))]
    described = {each["description"] for some in values for each in (some or {}).values() if "description" in each}
    assert len(described) > 10
    assert [each for each in sorted(described) if f". {each} |" not in rest()] == []


def test_a_page_that_is_out_of_date_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "PAGES", {"one.md": lambda: "one\n", "folder/two.md": lambda: "two\n"})
    monkeypatch.setattr(sys, "argv", ["reference"])
    assert main() == 0
    (tmp_path / "folder" / "two.md").write_text("two, by hand\n")
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    assert main() == 1
    errors = capsys.readouterr().err
    assert "docs/folder/two.md" in errors
    assert "one.md" not in errors
    assert (tmp_path / "folder" / "two.md").read_text() == "two, by hand\n"
