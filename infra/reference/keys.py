"""Tables of the keys of a settings file, from the pydantic models that read it.

A key's meaning is its docstring; its type, range and default are what pydantic checks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infra.reference.markdown import paragraphs, table
from infra.settings.described import bounded, docstrings, kind_of, without_none

Places = Mapping[type[BaseModel], str]
"""Places of each model's keys on the page: Markdown links."""


def keys(
    title: str, model: type[BaseModel], places: Places | None = None, *, left_out: Collection[str] = (), level: int = 2
) -> str:
    """Return a section with the keys of a model, except those `left_out`."""
    said = docstrings(model)
    rows = [
        (f"`{info.alias or name}`", _kind(info, places or {}), _default(info), said.get(name, ""))
        for name, info in model.model_fields.items()
        if name not in left_out
    ]
    found = table(("key", "type", "default", "meaning"), rows)
    return "\n\n".join(filter(None, (f"{'#' * level} {title}", paragraphs(model.__doc__), found)))


def _kind(info: FieldInfo, places: Places) -> str:
    annotation = without_none(info.annotation)
    inside = next((each for each in (annotation, *get_args(annotation)) if each in places), None)
    if inside is not None:
        return places[inside] if inside is annotation else bounded(f"list of {places[inside]}", info.metadata)
    return bounded(kind_of(annotation), info.metadata)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, Path):
        value = str(value)
    return "none" if value in (None, [], {}, ()) and not isinstance(value, bool) else f"`{json.dumps(value)}`"
