"""The reference of the console's REST API."""

from __future__ import annotations

from typing import Any, Final

from consumers.cameras.state import State
from consumers.conservation.live import LiveFindings
from consumers.console.api.routes import OPERATIONS, ROOT, document
from consumers.console.data.alerts import AlertRow
from consumers.console.data.cards import Card
from consumers.console.data.store import Operation
from infra.reference.markdown import code, page, table
from infra.reference.report import fields
from infra.reference.wire_format import value_rows

_HEAD: Final = f"""\
The console answers programs below `{ROOT}`, and describes it in `{ROOT}/openapi.json`. Programs send an [API
token](../operations/people.md#programs) as `Authorization: Bearer TOKEN`, or HTTP Basic; whatever changes something
takes a JSON object with `content-type: application/json`. A refusal is a status from 400 on with `error`, one line;
it is 404 for an unknown camera in the path. Times are Unix milliseconds unless a name ends otherwise.
"""

_KINDS: Final = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null",
}  # fmt: skip


def rest() -> str:
    """Return the page of the REST API."""
    paths = document()["paths"]
    return page(
        "REST",
        _HEAD,
        "Each operation names the [right](rights.md) that it needs.",
        "## The console",
        *(_operation(each.method, each.path, paths[ROOT + each.path][each.method.lower()]) for each in OPERATIONS),
        fields("A card", Card),
        "`state` is one of these, the worst first:",
        table(("state", "meaning"), value_rows(State)),
        fields("An alert", AlertRow),
        fields("A line of the audit log", Operation),
        fields("The live audit", LiveFindings),
        "The document also contains [the counts](report.md#counts) of an audit.",
    )


def _operation(method: str, path: str, entry: dict[str, Any]) -> str:
    rows = [(code(each["name"]), each["in"], _schema(each["schema"])) for each in entry["parameters"]]
    if "requestBody" in entry:
        [content] = entry["requestBody"]["content"].values()
        schema = content["schema"]
        required = schema.get("required", ())
        rows += [
            (code(name), "body, required" if name in required else "body", _schema(kind))
            for name, kind in schema.get("properties", {}).items()
        ]
    status, done = next(iter(entry["responses"].items()))  # the success comes before the errors
    [gives] = done["content"]
    parts = (
        f"### `{method} {path}`",
        f"{entry['summary']}. {entry['description']}",
        table(("parameter", "in", "value"), rows),
        f"Answers {status} with {code(gives)}: {done['description']}",
    )
    return "\n\n".join(filter(None, parts))


def _schema(schema: dict[str, Any]) -> str:
    """Return the values of a parameter in words, with what its description adds."""
    return ". ".join(filter(None, (_kind(schema), schema.get("description"))))


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(code(each) for each in schema["enum"])
    if "properties" in schema:
        return "object of " + ", ".join(code(each) for each in schema["properties"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(_KINDS[kind] for kind in kinds)
