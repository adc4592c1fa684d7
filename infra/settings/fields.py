"""The fields of a settings model as dotted paths, such as `bounds.quarantine_bytes`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.settings.described import bounded, docstrings, kind_of, without_none
from schemas.settings import HostPort
from schemas.transport.access import KafkaAccess, MqttAccess

RESERVED: Final = "RESERVED"
"""Attribute of a model with the paths in its tables that the model sets itself and rejects from the user."""


@dataclass(frozen=True)
class SettingsField:
    """One field that a user can set."""

    path: str
    """Names of the tables and of the field, with dots between them."""
    info: FieldInfo
    help: str
    default: Any
    """The default; None for a required field and for one without a value."""
    is_required: bool = False
    """Whether the settings are incomplete without it. A field of a table that may be absent is not."""

    @property
    def annotation(self) -> Any:
        """The type of the field, without None."""
        found = without_none(self.info.annotation)
        # An address is text; the roles replace it by an object when they have read certificates and passwords.
        return str if self.is_address or {KafkaAccess, MqttAccess} & set(get_args(found)) else found

    @property
    def is_address(self) -> bool:
        """Whether the field is an address, written host:port."""
        metadata = (*self.info.metadata, *getattr(without_none(self.info.annotation), "__metadata__", ()))
        return get_args(HostPort)[1] in metadata

    @property
    def kind(self) -> str:
        """The type and the range, in words."""
        if self.is_address:
            return "host:port"
        return bounded(kind_of(self.annotation), self.info.metadata)

    def variable(self, prefix: str) -> str:
        """Return the name of the field's environment variable."""
        return prefix + self.path.upper().replace(".", "__")


def default_of(info: FieldInfo, name: str, table: BaseModel | None = None) -> Any:
    """Return the default of a field, that of the `table` where a model gives the table its own defaults."""
    if table is not None:
        return getattr(table, name)
    return None if info.is_required() else info.get_default(call_default_factory=True)


def own_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return the values that the defaults of a model's tables have and the models of the tables have not."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        default = default_of(info, name)
        if isinstance(default, BaseModel):
            own = own_defaults(type(default)) | default.model_dump(include=default.model_fields_set)
            found |= {name: own} if own else {}
    return found


def fields(
    model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None, *, optional: bool = False
) -> Iterator[SettingsField]:
    """Yield the fields of a model, then those of its tables.

    `defaults` is a table with its own defaults; an `optional` table may be absent.
    """
    texts, tables = docstrings(model), []
    reserved: Collection[str] = getattr(model, RESERVED, ())
    for name, info in model.model_fields.items():
        table = table_of(info)
        if table is None:
            required = info.is_required() and not optional
            yield SettingsField(prefix + name, info, texts.get(name, ""), default_of(info, name, defaults), required)
        else:
            tables.append((name, table, default_of(info, name, defaults), optional or not info.is_required()))
    for name, table, own, may_be_absent in tables:
        for each in fields(table, f"{prefix}{name}.", own, optional=may_be_absent and own is None):
            # A reserved path is a field of a table, or a table of a table.
            first, second, *_ = each.path.removeprefix(prefix).split(".")
            if f"{first}.{second}" not in reserved:
                yield each


def absent_tables(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and help of each table that is absent unless it is given. Its settings have no effect until then."""
    texts = docstrings(model)
    for name, info in model.model_fields.items():
        table = table_of(info)
        if table is not None:
            if not info.is_required() and default_of(info, name) is None:
                yield prefix + name, texts.get(name, "")
            yield from absent_tables(table, f"{prefix}{name}.")


def entry_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the tables in a table by name, None for another field."""
    annotation = without_none(info.annotation)
    entry = get_args(annotation)[1] if get_origin(annotation) is dict else None
    return entry if isinstance(entry, type) and issubclass(entry, BaseModel) else None


def entries(model: type[BaseModel]) -> Iterator[SettingsField]:
    """Yield the fields of the tables in tables by name, with NAME for the name."""
    for each in fields(model):
        if (entry := entry_of(each.info)) is not None:
            yield from fields(entry, f"{each.path}.NAME.")


def table_of(info: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a table, None for a field that holds a value."""
    annotation = without_none(info.annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def known_part(model: type[BaseModel], names: Iterable[str]) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Yield the names of tables and fields from the first one to the last known, each with its table's model."""
    table: type[BaseModel] | None = model
    entry: type[BaseModel] | None = None
    for name in names:
        if entry is not None:
            table, entry = entry, None
        elif table is not None and name in table.model_fields:
            info = table.model_fields[name]
            table, entry = table_of(info), entry_of(info)
        else:
            return
        yield name, table


def table_at(model: type[BaseModel], path: str) -> type[BaseModel] | None:
    """Return the model of the table at a path; `""` is the model itself."""
    names = path.split(".") if path else []
    tables = [model, *(table for _, table in known_part(model, names))]
    return tables[-1] if len(tables) > len(names) else None
