"""Settings of the roles: each field, the precedence of their sources, and one error line for an invalid value."""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr

from infra.local.ports import Ports
from infra.settings.document import listing, toml
from infra.settings.fields import SettingsField, entries, entry_of, fields
from infra.settings.load import SettingsSources, load, nested
from infra.settings.roles import MODELS, model_of, prefix_of
from infra.state_folder import Layout
from infra.state_folder.environment import Environment
from infra.up.processes import LocalRoles, RoleProcess
from infra.up.settings import UpSettings
from schemas.errors import ConfigError

ROOT = Path(__file__).parents[2]

REQUIRED: dict[str, dict[str, Any]] = {"fleet": {"scenario": "one.yaml"}}
"""Required settings of a role."""
EXCLUSIVE: dict[str, tuple[str, ...]] = {
    "up": ("http_plain", "cameras_file"),
    "camera-attach": ("camera.source.login.variable", "camera.video.max_bytes_per_second"),
    "camera-run": ("share",),
    "camera-test": ("source.login.variable",),
}
"""Settings that exclude another one of their role."""
EXAMPLES: dict[str, Any] = {
    "sites": {"guards of the north": "north=operator"},
    "behind_proxy": "192.0.2.1",
    "prometheus": "http://127.0.0.1:9090",
    "tracing": "http://127.0.0.1:4318",
    "alertmanager": "http://127.0.0.1:9093",
    "console": "http://127.0.0.1:8080",
    "issuer": "https://login.example",
    "url": "https://console.example",
    "database": "postgresql+psycopg://host/name",
    "hours": ["mon-fri 07:00-19:00"],
    "zone": "Europe/Berlin",
    "privacy": [[0.1, 0.2, 0.3, 0.4]],
    "region": [8, 0, 640, 480],
    "size": [640, 480],
}
"""Values of fields with a special form, by name."""


SITE = "[sites.north]\nurl = 'https://n.example'\ntoken_file = 'x'"


pytestmark = pytest.mark.usefixtures("no_settings_from_the_environment")


def example(each: SettingsField) -> Any:
    """Return a valid value that is not the default."""
    name, kind = each.path.rpartition(".")[2], each.annotation
    if entry_of(each.info) is not None:
        return {"north": {"url": EXAMPLES["url"], "token_file": "north.token"}}
    if name in EXAMPLES and kind is not bool:
        return EXAMPLES[name]
    if each.is_address:
        return "127.0.0.2:81"
    if kind is bool:
        return not each.default
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != each.default)
    if get_origin(kind) is tuple:
        return ["one", "two"]
    return number(each) if kind in (int, float) else "other"


def number(each: SettingsField) -> float:
    """Return a number within the field's bounds that is not the default."""
    bounds = {
        key: getattr(part, key) for part in each.info.metadata for key in ("ge", "gt", "le", "lt") if hasattr(part, key)
    }
    first = each.default or 0
    ends = [value for value in (*bounds.values(), first) if value is not None]
    for value in map(each.annotation, (first + 1, first / 2, first * 1.5, max(ends), (min(ends) + max(ends)) / 2)):
        within = (
            value >= bounds.get("ge", value) and value <= bounds.get("le", value),
            value > bounds.get("gt", value - 1) and value < bounds.get("lt", value + 1),
        )
        if all(within) and value != each.default:
            return float(value) if each.annotation is float else int(value)
    raise AssertionError(f"expected an example of {each.path}")


def value_at(path: str, found: Any) -> Any:
    for name in path.split("."):
        found = getattr(found, name)
    return found


def examples(role: str) -> list[dict[str, Any]]:
    """Return values of all fields by path, in groups that can be set together."""
    found = {each.path: example(each) for each in fields(model_of(role))}
    exclusive = [{path: found.pop(path)} for path in EXCLUSIVE.get(role, ())]
    return [found, *exclusive]


def unset_fields(role: str, values: dict[str, Any], found: Any) -> list[str]:
    """Return the fields without the given value, and those whose given value is the default."""
    known = {each.path: each for each in fields(model_of(role))}
    return [
        f"{path}: {value_at(path, found)!r}"
        for path, value in values.items()
        if as_in_file(value_at(path, found)) != as_in_file(value)
        or as_in_file(value) == as_in_file(known[path].default)
    ]


@pytest.mark.parametrize("role", MODELS)
def test_every_field_is_set_by_a_file(tmp_path: Path, role: str) -> None:
    for values in examples(role):
        file = tmp_path / "role.toml"
        file.write_text(toml(nested(values)))
        assert unset_fields(role, values, load(model_of(role), SettingsSources(role, file))) == []


@pytest.mark.parametrize("role", MODELS)
def test_every_field_is_set_by_the_environment(role: str) -> None:
    known = {each.path: each for each in fields(model_of(role))}
    for values in examples(role):
        with pytest.MonkeyPatch.context() as patch:
            for path, value in values.items():
                text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", '"')
                patch.setenv(known[path].variable(prefix_of(role)), text)
            assert unset_fields(role, values, load(model_of(role), SettingsSources(role))) == []


def test_setting_one_value_of_a_table_keeps_the_other_values() -> None:
    """Use the evidence from whole frames, whose defaults differ from those of its model."""
    usual: Any = load(model_of("recorder"), SettingsSources("recorder"))
    found: Any = load(model_of("recorder"), SettingsSources("recorder", options={"evidence.sum.spreads": "3"}))
    assert found.evidence.sum == usual.evidence.sum.model_copy(update={"spreads": 3.0})


@pytest.mark.parametrize("role", MODELS)
def test_every_field_has_a_description(role: str) -> None:
    assert [each.path for each in (*fields(model_of(role)), *entries(model_of(role))) if not each.help] == []


def as_in_file(value: Any) -> Any:
    """Return a value in the form of a settings file."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict):
        return {name: as_in_file(each) for name, each in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return f"{value[0]}:{value[1]}"
    if isinstance(value, tuple | list):
        return [as_in_file(each) if isinstance(each, tuple | list) else str(each) for each in value]
    return value if isinstance(value, bool | int | float) else str(value)


@pytest.mark.parametrize("role", MODELS)
def test_the_listing_of_a_role_loads_as_the_same_settings(tmp_path: Path, role: str) -> None:
    sources = SettingsSources(role, options=REQUIRED.get(role, {}))
    first = load(model_of(role), sources)
    file = tmp_path / "role.toml"
    file.write_text(listing(first, role))
    copy = load(model_of(role), SettingsSources(role, file))
    assert copy.model_dump() == first.model_dump()
    assert tomllib.loads(file.read_text())


def test_the_listing_without_a_required_value_has_no_warning() -> None:
    assert "\n# scenario =\n" in listing(load(model_of("fleet"), SettingsSources("fleet"), partial=True), "fleet")


def test_a_user_s_name_with_special_characters_is_a_key_of_a_file(tmp_path: Path) -> None:
    sites = {"cn=guards, ou=north": "north=viewer", "*": "lobby=viewer"}
    elsewhere = {"north.1": {"url": "https://n.example", "token_file": "x"}}
    tables = {"behind_proxy": "192.0.2.1", "proxy_login": {"sites": sites}, "sites": elsewhere}
    file, copy = tmp_path / "console.toml", tmp_path / "copy.toml"
    file.write_text(toml(tables))
    first: Any = load(model_of("console"), SettingsSources("console", file, REQUIRED.get("console", {})))
    copy.write_text(listing(first, "console"))
    found: Any = load(model_of("console"), SettingsSources("console", copy))
    assert first.proxy_login.sites == found.proxy_login.sites == sites
    assert first.sites == found.sites
    assert found.sites["north.1"].ca_file is None


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, 1e-7, 0.5])
def test_every_number_survives_toml(value: float) -> None:
    assert tomllib.loads(toml({"drain_s": value})) == {"drain_s": value}


def test_an_option_precedes_the_environment_which_precedes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = model_of("recorder"), tmp_path / "role.toml"
    file.write_text("[bounds]\nstrangers = 1\nevidence_rows = 1\nalert_rows = 1\n")
    monkeypatch.setenv("POINTILLIST_RECORDER__BOUNDS__EVIDENCE_ROWS", "2")
    monkeypatch.setenv("POINTILLIST_RECORDER__BOUNDS__ALERT_ROWS", "2")
    found: Any = load(model, SettingsSources("recorder", file, {"bounds.alert_rows": "3"}))
    bounds = found.bounds
    assert (bounds.strangers, bounds.evidence_rows, bounds.alert_rows) == (1, 2, 3)
    assert bounds.preview_cameras == 1_000


def test_a_role_s_own_variable_precedes_the_one_for_all_roles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "role.toml"
    file.write_text('kafka_tls = "of the file"\n')
    monkeypatch.setenv("POINTILLIST_KAFKA_TLS", "of all")
    shared: Any = load(model_of("bridge"), SettingsSources("bridge", file))
    assert shared.kafka_tls == Path("of all")
    monkeypatch.setenv("POINTILLIST_BRIDGE__KAFKA_TLS", "own")
    own: Any = load(model_of("bridge"), SettingsSources("bridge", file))
    assert own.kafka_tls == Path("own")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("64MiB", "database_bytes", 64 * 2**20),
        ("1.5GiB", "database_bytes", 3 * 2**29),
        ("7d", "database_age_s", 604_800),
    ],
)
def test_bytes_and_seconds_may_have_a_unit(text: str, name: str, value: float) -> None:
    found: Any = load(model_of("recorder"), SettingsSources("recorder", options={f"bounds.{name}": text}))
    assert getattr(found.bounds, name) == value


@pytest.mark.parametrize(
    ("role", "content", "line"),
    [
        ("bridge", "typo = 1", "role.toml: typo: expected one of "),
        ("recorder", "[bounds]\nquarantine = 1", "role.toml: bounds.quarantine: expected one of database_rows"),
        ("recorder", "[bounds]\ndatabase_age_s = inf", "bounds.database_age_s: expected number > 0, ≤ 3,153,600,000"),
        ("console", "[bounds]\nclip_age_s = 1e300", "bounds.clip_age_s: expected number > 0, ≤ 3,153,600,000"),
        ("monitor", "audit_s = 300", "role.toml: audit_s: expected number > 0, ≤ 240, got 300. "),
        ("monitor", "alerts_s = 300", "role.toml: alerts_s: expected number > 0, ≤ 240, got 300. "),
        ("bridge", "linger_ms = 'long'", "role.toml: linger_ms: expected number ≥ 0, ≤ 10,000, got 'long'. "),
        ("processor", "mode = 'best'", 'role.toml: mode: expected "default" or "paper" or "plate" or "none", got'),
        ("bridge", "credit_bytes = 67108864", "camera_backlog_bytes: expected more than credit_bytes"),
        ("recorder", "group = 'a'\ndatabase = 'sqlite:///x'", "group: expected a PostgreSQL database, got SQLite"),
        ("console", "http = 'here'", "role.toml: http: expected host:port, got 'here'. Correct the address."),
        ("up", "[bridge]\nkafka = 'x:1'", "bridge.kafka: expected no value, got one. Remove it: `up` has its own."),
        (
            "up",
            "[processor]\ngroup = 'mine'",
            "processor.group: expected no value, got one. Remove it: `up` has its own.",
        ),
        ("up", "http_plain = true\nhttp_tls = 'x'", "http_plain: expected it without http_tls"),
        ("fleet", "", "role.toml: scenario is missing: expected path."),
        ("bridge", "a b", "role.toml: expected TOML, got something else"),
        (
            "console",
            f"{SITE}\n{SITE}",
            "role.toml: expected TOML, got something else: Cannot declare ('sites', 'north')",
        ),
        ("console", SITE.replace("https", "http"), "role.toml: sites.north.url: expected an https URL, got http://n."),
        ("console", SITE.replace("north", "North"), "role.toml: sites.North: expected a site of a-z 0-9 _ . -"),
        ("console", f"{SITE}\ntypo = 1", "role.toml: sites.north.typo: expected one of url, token_file, ca_file"),
        (
            "console",
            "[sites.north]\nurl = 'https://n.example'",
            "role.toml: sites.north.token_file is missing: expected path",
        ),
        (
            "up",
            "[console.sites.north]\nurl = 3\ntoken_file = 'x'",
            "role.toml: console.sites.north.url: expected text, got 3",
        ),
    ],
)
def test_an_invalid_file_is_one_error_line(tmp_path: Path, role: str, content: str, line: str) -> None:
    file = tmp_path / "role.toml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(model_of(role), SettingsSources(role, file))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("POINTILLIST_BRIDGE__TYPO", "1", "POINTILLIST_BRIDGE__TYPO: expected the variable of a setting"),
        ("POINTILLIST_BRIDGE__LINGER_MS", "-1", "POINTILLIST_BRIDGE__LINGER_MS: expected number ≥ 0, ≤ 10,000, got"),
        ("POINTILLIST_CONSOLE__ALLOWED_HOST", "a", "POINTILLIST_CONSOLE__ALLOWED_HOST: expected list of text"),
    ],
)
def test_an_invalid_variable_is_one_error_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str
) -> None:
    monkeypatch.setenv(variable, value)
    role = variable.removeprefix("POINTILLIST_").partition("__")[0].lower()
    with pytest.raises(ConfigError) as caught:
        load(model_of(role), SettingsSources(role))
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("database", "printed"),
    [
        ("postgresql+psycopg://me:hunter2@host/name", "postgresql+psycopg://***@host/name"),
        ("postgresql+psycopg://me:/hunter2@host/name", "postgresql+psycopg://***@host/name"),
        ("postgresql+psycopg://me:a hunter2@host/name", "postgresql+psycopg://***@host/name"),
        ("postgresql+psycopg://me:a@hunter2@host/name", "postgresql+psycopg://***@host/name"),
        (
            "postgresql+psycopg://host/name?user=me&password=hunter2&sslmode=require",
            "postgresql+psycopg://host/name?user=me&password=***&sslmode=require",
        ),
        (
            "postgresql+psycopg://host/name?sslkey=me.key&sslpassword=hunter2",
            "postgresql+psycopg://host/name?sslkey=me.key&sslpassword=***",
        ),
    ],
)
def test_a_listing_repeats_no_password(database: str, printed: str) -> None:
    text = listing(load(model_of("recorder"), SettingsSources("recorder", options={"database": database})), "recorder")
    assert "hunter2" not in text
    assert f'database = "{printed}"' in text


def test_up_passes_each_role_its_settings_in_a_private_file(tmp_path: Path) -> None:
    options = {"bridges": 2, "bridge": {"linger_ms": 3}, "recorder": {"bounds": {"strangers": 7}}, "state": tmp_path}
    roles = LocalRoles(
        UpSettings.model_validate(options), Layout(tmp_path), Ports(tmp_path), "127.0.0.1:1", "127.0.0.1:2"
    )
    started = [
        *roles.bridges(),
        *roles.processors(),
        roles.recorder(),
        roles.console(),
        roles.monitor(),
        *roles.fleets(1),
    ]
    for role in started:
        file = Layout(tmp_path).role_settings(role.name)
        assert isinstance(role.process, RoleProcess)
        assert role.process.arguments[1:] == ["--config", str(file)]
        assert file.stat().st_mode & 0o077 == 0
        model = model_of(role.name.partition("-")[0])
        assert value_at("metrics", load(model, SettingsSources(role.name.partition("-")[0], file))) == role.metrics
    bridge: Any = load(model_of("bridge"), SettingsSources("bridge", Layout(tmp_path).role_settings("bridge-2")))
    assert (bridge.name, bridge.linger_ms, bridge.kafka) == ("bridge-2", 3, "127.0.0.1:2")
    recorder: Any = load(model_of("recorder"), SettingsSources("recorder", Layout(tmp_path).role_settings("recorder")))
    assert recorder.bounds.strangers == 7
    assert (bridge.tracing, recorder.tracing) == (None, None)


def test_one_option_of_up_traces_all_roles_that_a_frame_passes(tmp_path: Path) -> None:
    settings = UpSettings(state=tmp_path, tracing="http://127.0.0.1:4318", tracing_share=0.5)
    roles = LocalRoles(settings, Layout(tmp_path), Ports(tmp_path), "127.0.0.1:1", "127.0.0.1:2")
    started = [
        *roles.bridges(),
        *roles.processors(),
        roles.recorder(),
        roles.console(),
        roles.monitor(),
        *roles.fleets(1),
    ]
    found = {}
    for role in started:
        name = role.name.partition("-")[0]
        settings_of_role = load(model_of(name), SettingsSources(name, Layout(tmp_path).role_settings(role.name)))
        found[name] = getattr(settings_of_role, "tracing", None), getattr(settings_of_role, "tracing_share", None)
    url = "http://127.0.0.1:4318"
    assert found == {
        "bridge": (url, None), "processor": (url, None), "recorder": (url, None), "fleet": (url, 0.5),
        "console": (None, None), "monitor": (None, None),
    }  # fmt: skip


def test_a_variable_traces_all_roles_and_a_role_s_variable_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_TRACING", "http://collector:4318")
    bridge: Any = load(model_of("bridge"), SettingsSources("bridge"))
    up: Any = load(model_of("up"), SettingsSources("up"))
    assert (bridge.tracing, up.tracing) == ("http://collector:4318", "http://collector:4318")
    monkeypatch.setenv(f"{prefix_of('bridge')}TRACING", "http://other:4318")
    bridge = load(model_of("bridge"), SettingsSources("bridge"))
    assert bridge.tracing == "http://other:4318"
    monkeypatch.setenv("POINTILLIST_TRACING", "collector:4318")
    with pytest.raises(ConfigError, match="POINTILLIST_TRACING"):
        load(model_of("up"), SettingsSources("up"))


def test_variables_of_the_roles_do_not_affect_the_roles_of_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_BRIDGE__KAFKA", "another.system:9092")
    roles = LocalRoles(UpSettings(state=tmp_path), Layout(tmp_path), Ports(tmp_path), "127.0.0.1:1", "127.0.0.1:2")
    [bridge] = roles.bridges()
    assert isinstance(bridge.process, RoleProcess)
    assert "POINTILLIST_BRIDGE__KAFKA" not in bridge.process.environment


def test_an_option_of_up_takes_precedence_over_a_variable_in_its_roles_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_TRACING", "http://collector:4318")
    monkeypatch.setenv("POINTILLIST_TRACING_SHARE", "0.5")
    options = {"state": tmp_path, "tracing": "http://other:4318", "tracing_share": 0.01}
    settings: Any = load(model_of("up"), SettingsSources("up", options=options))
    roles = LocalRoles(settings, Layout(tmp_path), Ports(tmp_path), "127.0.0.1:1", "127.0.0.1:2")
    [fleet] = roles.fleets(1)
    assert isinstance(fleet.process, RoleProcess)
    for name in os.environ.keys() - fleet.process.environment.keys():
        monkeypatch.delenv(name)
    found: Any = load(model_of("fleet"), SettingsSources("fleet", Layout(tmp_path).role_settings("fleet")))
    assert (found.tracing, found.tracing_share) == ("http://other:4318", 0.01)


DEPLOYMENTS = ("compose.yaml", *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "infra").rglob("*.yaml"))))


@pytest.mark.parametrize("place", [place for place in DEPLOYMENTS if "POINTILLIST_" in (ROOT / place).read_text()])
def test_every_variable_of_a_deployment_is_read(place: str) -> None:
    ours = {each.variable(prefix_of(role)) for role in MODELS for each in fields(model_of(role))}
    others = {f"POINTILLIST_{name.upper()}" for name in Environment.model_fields}
    # Grafana's provisioning reads its own.
    grafana = {"POINTILLIST_PROMETHEUS_URL", "POINTILLIST_CONSOLE_URL", "POINTILLIST_DASHBOARDS"}
    named = set(re.findall(r"\bPOINTILLIST_[A-Z_]+\b", (ROOT / place).read_text()))
    assert named - ours - others - grafana == set()
