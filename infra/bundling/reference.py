"""The reference page of `model.toml`, made from the classes that read it: `python -m infra.bundling.reference`.

What a key means is its docstring there; its type, range and default are what pydantic checks.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from processors.bundle import BundleSettings, DroppedStripThreshold, InputSettings, StripSettings
from processors.preprocess.registry import STAGES

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "model-toml.md"
_LIST: Final = "list of "
_HEAD: Final = """\
# `model.toml`

<!-- Made by `python -m infra.bundling.reference --write`; a test compares it with the code. -->

A bundle is a folder with a `model.toml` and the files that it names. `pointillist bundle create` writes one from a
network of yours, `pointillist lab calibrate` its `[strip]` tables; both can be edited. An unknown key, a wrong type or
a value out of its range is refused when the bundle is loaded, in one line that names it.

| `format` | `weights` is | needs | tools that do not apply |
| --- | --- | --- | --- |
| `safetensors` | tensors by name | `factory`, which makes the network | none |
| `torchscript` | a scripted or traced module: code | `--allow-code`, or a trusted signer | training, if frozen |
| `onnx` | a graph in one file | onnxruntime | `lab repair`, `lab harden`, attacks that follow gradients |

A `factory` is `file.py:function` with the file in the bundle, which is code too, or `package.module:function` of what
ships (`processors.networks.…`) or of packages that `--factories` names. `torchvision_network` and `timm_network` of
`processors.networks.library` make networks of these libraries by `name`, where they are installed.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD]
    parts += _table("Top of the file", BundleSettings, ("input", "preprocess", "strip"))
    parts += _table("`[input]`", InputSettings)
    parts += _table("`[strip]`", StripSettings, ("dropped",))
    parts += _table("`[[strip.dropped]]`", DroppedStripThreshold)
    parts.append("## `[[preprocess]]`\n\nStages before the network, in their order; at most 16.\n")
    for name, stage in sorted(STAGES.items()):
        parts += _table(f'`stage = "{name}"`', stage, ("stage",), level=3)
    return "\n".join(parts).rstrip() + "\n"


def _table(title: str, model: type[BaseModel], left_out: tuple[str, ...] = (), level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    if said := _paragraph(inspect.getdoc(model)):
        yield f"{said}\n"
    texts = docstrings(model)
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, info in model.model_fields.items():
        if name not in left_out:
            cells = (f"`{name}`", kind_of(info), _default(info), texts.get(name, ""))
            rows.append("| " + " | ".join(each.replace("|", r"\|") for each in cells) + " |")
    yield "\n".join(rows) + "\n"


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands in quotes under each field of a class and of those that it is made from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if not issubclass(each, BaseModel) or each is BaseModel:
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match text:
                    case ast.Expr(value=ast.Constant(value=str(said))):
                        found[statement.target.id] = _paragraph(said)
    return found


def kind_of(info: FieldInfo) -> str:
    """The type of a field as a person writes it, with its bounds."""
    bounds, kind = _bounds(info.metadata), _kind(info.annotation)
    if bounds and kind.startswith(_LIST):
        return f"list {bounds} of {kind.removeprefix(_LIST)}"
    return " ".join(filter(None, (kind, bounds)))


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(each)}`" for each in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not NoneType)
    if origin is list:
        return f"{_LIST}{_kind(arguments[0])}"
    if origin is dict:
        return "table"
    if hasattr(annotation, "__metadata__"):
        return " ".join(filter(None, (_kind(arguments[0]), _bounds(_parts(annotation.__metadata__)))))
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def _parts(metadata: tuple[Any, ...]) -> list[Any]:
    """What a `Field(…)` inside a type holds."""
    return [each for part in metadata for each in getattr(part, "metadata", [part])]


def _bounds(metadata: list[Any]) -> str:
    words = {
        "ge": "≥ {}",
        "gt": "> {}",
        "le": "≤ {}",
        "lt": "< {}",
        "min_length": "of at least {}",
        "max_length": "of at most {}",
    }
    found = []
    for each in metadata:
        found += [
            form.format(getattr(each, key)) for key, form in words.items() if getattr(each, key, None) is not None
        ]
    return ", ".join(found)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return "none" if value in (None, [], {}) and not isinstance(value, bool) else f"`{json.dumps(value)}`"


def _paragraph(text: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((inspect.cleandoc(text or "").partition("\n\n")[0]).split())


def main() -> None:
    """Print the page, or with `--write` put it where it belongs."""
    if "--write" in sys.argv[1:]:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
