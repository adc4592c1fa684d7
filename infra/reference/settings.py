"""The reference of the roles' settings, from their models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from infra.reference.markdown import code, page, paragraphs, table
from infra.settings.fields import SettingsField, absent_tables, entries, fields
from infra.settings.load import SHARED
from infra.settings.roles import MODELS, model_of, prefix_of

_HEAD: Final = """\
Every setting of a role can be set in a TOML file, which the option `--config FILE` names, and by an environment
variable. The settings that are changed most often have an option too: [the command line](command-line.md) lists them.
An option takes precedence over the environment, the environment over the file, and the file over the default.

`pointillist config ROLE` prints the settings in force as a commented TOML file. `pointillist config ROLE --config
FILE --check` only checks them. An unknown key, a wrong type, a value out of its range and a contradiction are
rejected in one line, with exit status 2.

Editors complete and check these files when they know the JSON Schema, which `pointillist config NAME --schema`
prints; [the schemas](schemas/processor.json) of all roles, of [`cameras.yaml`](schemas/cameras.json), of
[scenarios](schemas/scenario.json) and of [`model.toml`](schemas/model.json) are also part of this documentation. Name
it in the first line: `#:schema ./processor.json` in TOML, `# yaml-language-server: $schema=./cameras.json` in YAML.

| setting `bounds.quarantine_bytes` of the recorder | form |
| --- | --- |
| file | `quarantine_bytes = "2GiB"` in the table `[bounds]` |
| variable | `POINTILLIST_RECORDER__BOUNDS__QUARANTINE_BYTES=2GiB` |

A number of bytes accepts the units KiB, MiB, GiB and TiB, a number of seconds min, h and d. In a variable a list is
JSON: `["a", "b"]`. Relative paths start at the working directory.

Where the default of a table is *absent*, the settings in it have no effect until the table is given. Their defaults,
and whether they are required, then apply.
"""
_UP: Final = """\
The tables `[bridge]`, `[processor]`, `[recorder]`, `[console]` and `[monitor]` contain settings of these roles,
below. `up` sets their brokers, certificates, addresses and databases itself, and rejects them there. It writes the
settings of each role to a file in the folder `settings` of the state folder. In a variable,
`POINTILLIST_UP__RECORDER__BOUNDS__DATABASE_AGE_S` is such a setting; `up` rejects the variables of these roles
themselves, such as `POINTILLIST_RECORDER__BOUNDS__DATABASE_AGE_S`.
"""


def settings() -> str:
    """Return the page of the settings."""
    return page("Settings of the roles", _HEAD, *(part for role in MODELS for part in _role(role)), *_shared())


def _role(role: str) -> Iterator[str]:
    model = model_of(role)
    yield f"## {role}"
    yield paragraphs(model.__doc__)
    yield f"Variables begin with `{prefix_of(role)}`."
    own = [each for each in (*fields(model), *entries(model)) if role != "up" or "." not in each.path]
    yield table(("setting", "type", "default", "meaning"), _rows(own, dict(absent_tables(model))))
    if role == "up":
        yield _UP


def _rows(own: Iterable[SettingsField], absent: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the settings, and before the first one of a table that may be absent the row of the table."""
    for each in own:
        for path in [path for path in absent if each.path.startswith(f"{path}.")]:
            yield code(path), "table", "absent", " ".join(absent.pop(path).split())
        yield _row(each)


def _row(each: SettingsField) -> tuple[str, ...]:
    default = "required" if each.info.is_required() and each.default is None else _default(each)
    return code(each.path), each.kind, default, " ".join(each.help.split())


def _default(each: SettingsField) -> str:
    value = each.default
    if value is None or value in ("", ()):
        return ""
    if each.is_address:
        return code("{}:{}".format(*value))
    return code(str(value).lower() if isinstance(value, bool) else value)


def _shared() -> Iterator[str]:
    yield "## Variables for all roles"
    yield "A role's own variable takes precedence."
    rows = ((code(f"POINTILLIST_{name.upper()}"), code(name)) for name in SHARED)
    yield table(("variable", "setting"), rows)
