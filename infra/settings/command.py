"""Options of a role's command, generated from the fields of its settings model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, get_origin

import typer
from pydantic import BaseModel, SecretStr
from typer.core import TyperCommand

from infra.settings.fields import SettingsField, fields
from infra.settings.load import SettingsSources, load
from infra.settings.roles import model_of

Command = Callable[..., None]
Tables = str | tuple[str, ...]
"""Names of tables that option names leave out."""
_loaded: ContextVar[BaseModel] = ContextVar("settings")
CONFIG: Final = "config"
_REMAINDER: Final = "`pointillist config {role}` lists all settings, their environment variables and their defaults."


def role_command(
    app: typer.Typer, role: str, *paths: str, strip: Tables = "", name: str | None = None
) -> Callable[[Command], Command]:
    """Register a function as a command; its first parameter receives the settings of a role.

    `paths` are the fields that have an option. The option is the path with `-` for dots, without the tables in
    `strip`, of which the first that fits counts: `bounds.database_bytes` with `strip="bounds"` is `--database-bytes`.
    """

    def register(function: Command) -> Command:
        class RoleCommand(TyperCommand):
            """A command that imports its settings model only when it is used."""

            def __init__(self, **options: Any) -> None:
                self._parameters: list[Any] = []
                self._complete = False
                super().__init__(**options)
                self._own = self.callback
                self.callback = self._run

            @property
            def params(self) -> list[Any]:
                """The parameters: those of the function, `--config`, and the generated options."""
                if not self._complete:
                    self._complete = True
                    self._parameters += generated_options(model_of(role), paths, strip)
                return self._parameters

            @params.setter
            def params(self, written: list[Any]) -> None:
                self._parameters = list(written)

            def settings_of(self, values: dict[str, Any]) -> tuple[BaseModel, dict[str, Any]]:
                """Return the settings that the parameters give, and the parameters of the function."""
                model = model_of(role)
                names = {each.path: option_name(each.path, strip) for each in fields(model)}
                given = {path: values.pop(parameter_name(path)) for path in paths}
                options = {path: value for path, value in given.items() if value not in (None, [], ())}
                return load(model, SettingsSources(role, values.pop(CONFIG), options, names)), values

            def _run(self, **values: Any) -> Any:
                found, own = self.settings_of(values)
                token = _loaded.set(found)
                try:
                    assert self._own is not None
                    return self._own(**own)
                finally:
                    _loaded.reset(token)

        signature = inspect.signature(function)
        _, *rest = signature.parameters.values()
        # The annotation of the settings is imported for type checkers only; those of the rest are names of the module.
        written = [each.replace(annotation=eval(each.annotation, function.__globals__)) for each in rest]

        def command(*arguments: Any, **values: Any) -> None:
            function(_loaded.get(), *arguments, **values)

        command.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{_REMAINDER.format(role=role)}"
        command.__signature__ = signature.replace(parameters=written)  # type: ignore[attr-defined]  # typer reads it
        command.__annotations__ = {each.name: each.annotation for each in written}
        app.command(name or function.__name__, cls=RoleCommand)(command)
        return function

    return register


def option_name(path: str, strip: Tables = "") -> str:
    """Return the name of the option of a field."""
    tables = (strip,) if isinstance(strip, str) else strip
    prefix = next((f"{table}." for table in tables if path.startswith(f"{table}.")), "")
    return "--" + path.removeprefix(prefix).replace(".", "-").replace("_", "-")


def parameter_name(path: str) -> str:
    """Return the name of the parameter that receives the option of a field."""
    return path.replace(".", "__")


def generated_options(model: type[BaseModel], paths: Sequence[str], strip: Tables) -> list[Any]:
    """Return `--config` and an option for each path. Values are text: the model checks them."""
    known = {each.path: each for each in fields(model)}
    parameters = [_parameter(known[path], strip) for path in paths]
    config = typer.Option("--config", metavar="FILE", help="TOML file with settings of this command.")
    annotated = Annotated[Path | None, config]
    parameters.append(inspect.Parameter(CONFIG, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotated))

    def function(**_values: Any) -> None: ...

    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    one = typer.Typer(add_completion=False)
    one.command()(function)
    return [each for each in typer.main.get_command(one).params if each.name != "help"]


def _parameter(each: SettingsField, strip: Tables) -> inspect.Parameter:
    name, text = option_name(each.path, strip), " ".join(each.help.split())
    annotation, default = each.annotation, default_text(each)
    shown: Any = {"show_default": default} if default else {"show_default": False}
    if annotation is bool:
        option = typer.Option(f"{name}/--no{name[1:]}", help=text, **shown)
        kind: Any = Annotated[bool | None, option]
    elif get_origin(annotation) in (tuple, list) and each.kind.startswith("list"):
        option = typer.Option(name, help=f"{text} Can be given again.", metavar=metavar(each), **shown)
        kind = Annotated[list[str] | None, option]
    else:
        option = typer.Option(name, help=text, metavar=metavar(each), **shown)
        kind = Annotated[str | None, option]
    return inspect.Parameter(parameter_name(each.path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def metavar(each: SettingsField) -> str:
    """Return the form of a field's value, for `--help`."""
    text = each.kind.replace("`", "").replace('"', "").replace(" or ", "|").removeprefix("list of ")
    return text.upper() if " " not in text and "|" not in text else text


def default_text(each: SettingsField) -> str:
    """Return the default of a field as `--help` shows it; empty for none."""
    value = each.default
    if value is None or value in ("", (), []) or isinstance(value, SecretStr):
        return "required" if each.is_required else ""
    return json.dumps(value) if isinstance(value, bool | tuple | list) else str(value)
