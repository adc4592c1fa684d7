"""Settings of a role from options, the environment and a TOML file, in this order of precedence."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Optional, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from infra.settings.fields import fields, known_part, own_defaults, table_at
from infra.settings.roles import prefix_of
from schemas.errors import ConfigError
from schemas.runtime.rejected_values import received

Model = TypeVar("Model", bound=BaseModel)
SHARED: Final = ("kafka_tls", "kafka_login_file", "mqtt_tls", "mqtt_login_file", "tracing", "tracing_share")
"""Settings that `POINTILLIST_NAME` sets for all roles. A role's own variable takes precedence."""
_SHARED_PREFIX: Final = "POINTILLIST_"


@dataclass(frozen=True)
class SettingsSources:
    """The places that one role's settings come from."""

    role: str
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values by path, such as `bounds.quarantine_bytes`."""
    option_names: Mapping[str, str] = field(default_factory=dict)
    """Names of the options, such as `--quarantine-bytes`, by path."""

    def origin(self, path: str) -> str:
        """Return the name under which the user has set a field, for messages."""
        if path in self.options:
            return self.option_names.get(path, path)
        variables = [f"{prefix_of(self.role)}{path.upper().replace('.', '__')}"]
        if path in SHARED:
            variables.append(_SHARED_PREFIX + path.upper())
        found = next((name for name in variables if name in os.environ), None)
        return found or (f"{self.file}: {path}" if self.file is not None else self.option_names.get(path, path))


class _Environment(EnvSettingsSource):
    """Environment variables. Lists and tables are JSON; the model checks any other text."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def load(model: type[Model], given: SettingsSources, *, partial: bool = False) -> Model:
    """Return the settings; ConfigError names the first value that is wrong, and its place.

    With `partial`, a required field without a value is None: for a listing only.
    """
    prefix = prefix_of(given.role)
    content = read_toml(given.file) if given.file is not None else {}
    _refuse_unknown_variables(model, given.role)
    shared: dict[str, Any] = {
        name: os.environ[_SHARED_PREFIX + name.upper()]
        for name in SHARED
        if name in model.model_fields and _SHARED_PREFIX + name.upper() in os.environ
    }

    def sources(
        cls: type[BaseSettings], settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = _Environment(settings_cls, env_prefix=prefix, env_nested_delimiter="__")
        files = (
            InitSettingsSource(settings_cls, init_kwargs=values) for values in (shared, content, own_defaults(model))
        )
        return (init_settings, environment, *files)

    required = {name: info.annotation for name, info in model.model_fields.items() if partial and info.is_required()}
    loaded = type(
        model.__name__,
        (model, BaseSettings),
        {
            "model_config": SettingsConfigDict(env_prefix=prefix, env_nested_delimiter="__", extra="forbid"),
            "settings_customise_sources": classmethod(cast("Callable[..., Any]", sources)),
            "__module__": model.__module__,
            "__annotations__": {name: Optional[kind] for name, kind in required.items()},  # noqa: UP045
            **dict.fromkeys(required),
        },
    )
    try:
        found = loaded(**nested(given.options))
    except ValidationError as error:
        raise ConfigError(first_problem(error, model, given.origin, given.role)) from None
    assert isinstance(found, model)
    # A plain instance: a copy of it reads no environment.
    return model.model_construct(found.model_fields_set, **{name: getattr(found, name) for name in model.model_fields})


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file; ConfigError when it cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: expected a TOML file, got {file}: {error.strerror}. Correct the path.") from None
    except ValueError as error:
        raise ConfigError(f"{file}: expected TOML, got something else: {error}. Correct the file.") from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by path as tables."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        *tables, name = path.split(".")
        inner = found
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[name] = value
    return found


def _refuse_unknown_variables(model: type[BaseModel], role: str) -> None:
    """Raise ConfigError for an environment variable with the role's prefix that sets nothing."""
    prefix = prefix_of(role)
    known = {each.variable(prefix) for each in fields(model)}
    for name in os.environ:
        if not name.startswith(prefix) or name in known or any(each.startswith(f"{name}__") for each in known):
            continue
        raise ConfigError(
            f"{name}: expected the variable of a setting, got an unknown one. "
            f"`pointillist config {role}` lists the settings."
        )


def first_problem(error: ValidationError, model: type[BaseModel], origin: Callable[[str], str], role: str) -> str:
    """Return one line on the first value that is wrong: its place, the expected form, and the value."""
    problem = error.errors(include_url=False)[0]
    hint = f"`pointillist config {role}` shows all settings."
    path = _path(model, problem["loc"])
    place = origin(path) if path else role
    if problem["type"] == "extra_forbidden":
        unknown = str(problem["loc"][-1])
        table = table_at(model, path)
        known = ", ".join(table.model_fields) if table is not None else "none"
        place = origin(".".join(filter(None, (path, unknown))))
        return f"{place}: expected one of {known}, got the key {unknown!r}. Remove it or correct its name."
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return message if not path or message.startswith("expected ") is False else f"{place}: {message}"
    if problem["type"] == "missing":
        missing = ".".join(map(str, problem["loc"]))
        return f"{origin(missing)} is missing: expected {_kind(model, missing)}. {hint}"
    return f"{place}: expected {_kind(model, path)}, got {received(problem['input'])}. {hint}"


def _path(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Return the part of pydantic's location that names tables and fields."""
    return ".".join(name for name, _ in known_part(model, map(str, place)))


def _kind(model: type[BaseModel], path: str) -> str:
    table, _, name = path.rpartition(".")
    model = (table_at(model, table) if table else None) or model
    found = next((each for each in fields(model) if each.path in (path, name)), None)
    if found is None:
        return "a table"
    pattern = next((each.pattern for each in found.info.metadata if getattr(each, "pattern", None)), None)
    return found.kind.replace("`", "") + (f" that matches {pattern}" if pattern else "")
