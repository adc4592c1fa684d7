"""The JSON Schemas accept the same documents as the models, and locate errors."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from infra.settings.document import listing
from infra.settings.json_schema import NAMES, json_schema
from infra.settings.load import SettingsSources, load
from infra.settings.roles import MODELS, model_of

ROOT = Path(__file__).parents[2]
SCENARIOS = [ROOT / "infra/compose/scenario.yaml", *sorted((ROOT / "infra/scenarios").glob("*.yaml"))]
BUNDLES = sorted((ROOT / "bundles").glob("*/model.toml"))
CAMERAS = {
    "site": "yard",
    "defaults": {"fps": 2, "motion": {"hold_s": "2min"}, "source": {"hang_s": 5}},
    "cameras": [
        {"name": "door", "source": {"address": "rtsp://192.168.0.7/stream", "size": "640x480"}},
        {"name": "lane-{index}", "count": 3, "source": {"file": "lane.mp4", "privacy": ["0,0,.5,.5"]}},
    ],
}


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json_schema(name))


def faults(name: str, document: Any) -> list[str]:
    return [f"{each.json_path}: {each.message}" for each in validator(name).iter_errors(document)]


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_describes_every_key(name: str) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    for model in (schema, *schema.get("$defs", {}).values()):
        keys = model.get("properties", {})
        assert [key for key, form in keys.items() if not form.get("description") and "$ref" not in str(form)] == []


@pytest.mark.parametrize("role", [each for each in MODELS if each != "fleet"])
def test_the_output_of_config_is_valid(role: str) -> None:
    settings = load(model_of(role), SettingsSources(role, None), partial=True)
    assert faults(role, tomllib.loads(listing(settings, role))) == []


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_shipped_scenarios_are_valid_and_name_their_schema(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    named = text.partition("$schema=")[2].split()[0]
    assert (file.parent / named).resolve() == ROOT / "docs/reference/schemas/scenario.json"
    assert faults("scenario", yaml.safe_load(text)) == []


@pytest.mark.parametrize("file", BUNDLES, ids=lambda file: file.parent.name)
def test_shipped_bundles_are_valid(file: Path) -> None:
    assert faults("model", tomllib.loads(file.read_text(encoding="utf-8"))) == []


def test_keys_may_come_from_the_defaults_and_quantities_have_units() -> None:
    assert faults("cameras", CAMERAS) == []
    shared = {"defaults": {"source": {"address": "rtsp://192.168.0.7/stream"}}, "cameras": [{"name": "door"}]}
    assert faults("cameras", {"site": "yard", **shared}) == []


@pytest.mark.parametrize(
    ("name", "document", "place"),
    [
        ("cameras", {**CAMERAS, "defaults": {"name": "door"}}, "$.defaults"),
        ("cameras", {**CAMERAS, "defaults": {"fps": "many"}}, "$.defaults.fps"),
        ("cameras", {**CAMERAS, "defaults": {"source": {"hang_s": "2 parsecs"}}}, "$.defaults.source.hang_s"),
        ("cameras", {"site": "yard", "cameras": [{"source": {"file": "a.mp4"}}]}, "$.cameras[0]"),
        ("scenario", {"site": "yard", "cameras": [{"name": "a", "drop_ratio": 2}]}, "$.cameras[0].drop_ratio"),
        ("recorder", {"bounds": {"quarantine_bytes": "2 GB"}}, "$.bounds.quarantine_bytes"),
        ("processor", {"nosuch": 1}, "$"),
    ],
)
def test_an_error_is_located_by_its_path(name: str, document: Any, place: str) -> None:
    assert [each.partition(":")[0] for each in faults(name, document)] == [place]
