"""JSON Schemas of the files that users write, from the models that read them, for editors and other tools."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from infra.settings.described import docstrings, paragraph
from infra.settings.roles import FILES, MODELS, model_of
from schemas.settings import UNITS, HostPort, SettingsTable
from schemas.transport.access import KafkaAccess, MqttAccess

NAMES: Final = (*FILES, *MODELS)
"""All schemas."""
_TEXT: Final[JsonSchemaValue] = {"type": "string"}


def json_schema(name: str) -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a file or of a role's settings; `ConfigError` for an unknown name.

    It accepts every valid file. A rule between two keys is checked when the file is read, not by the schema.
    """
    if name in FILES:
        module, _, kind = FILES[name].partition(":")
        model: type[BaseModel] = getattr(import_module(module), kind)
    else:
        model = model_of(name)
    schema = model.model_json_schema(schema_generator=_Generator)
    if name in ("cameras", "scenario"):
        _make_defaults_optional(schema)
    if name == "model":
        _name_stages(schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def written_schema(name: str) -> str:
    """Return the schema as the text of its file."""
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Attribute docstrings become descriptions, and the forms that validators read as text are accepted."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        texts = docstrings(model)
        found["description"] = paragraph(model.__doc__)
        for name, info in model.model_fields.items():
            place = info.alias or name
            if place not in found["properties"]:
                continue
            form = found["properties"][place]
            if get_args(HostPort)[1] in info.metadata or {KafkaAccess, MqttAccess} & set(get_args(info.annotation)):
                form = dict(_TEXT)
            elif text := _text_of(model, name):
                form = {"anyOf": [form, text, *([{"type": "array", "items": text}] if form.get("items") else [])]}
            found["properties"][place] = form | ({"description": texts[name]} if name in texts else {})
        return found

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:
        """Return the form of a text, from which a validator makes the object, such as the access to a broker."""
        return dict(_TEXT)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles, which would repeat the names."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave out defaults: they are Python values, and the pages of the reference list them."""
        return self.generate_inner(schema["schema"])


def _text_of(model: type[BaseModel], name: str) -> JsonSchemaValue | None:
    """Return the schema of the text that a validator of the model turns into the field's value; None without one."""
    if issubclass(model, SettingsTable) and (units := UNITS.get(name.removesuffix("_per_s").rpartition("_")[2])):
        return _TEXT | {"pattern": rf"^\d+(\.\d+)? ?({'|'.join(units)})$"}
    validators = model.__pydantic_decorators__.field_validators.values()
    return _TEXT if any(each.info.mode == "before" and name in each.info.fields for each in validators) else None


def _make_defaults_optional(schema: dict[str, Any]) -> None:
    """Require only the name of a camera. `defaults` may hold its keys except its name and numbers."""
    definitions = schema["$defs"]
    camera = definitions[schema["properties"]["cameras"]["items"]["$ref"].rpartition("/")[2]]
    camera["required"] = ["name"]
    shared = {key: form for key, form in camera["properties"].items() if key not in ("name", "count", "first")}
    meaning = {"description": schema["properties"]["defaults"]["description"]}
    schema["properties"]["defaults"] = {"type": "object", "properties": shared, "additionalProperties": False} | meaning


def _name_stages(schema: dict[str, Any]) -> None:
    """List the stages before the network; each has keys of its own."""
    from processors.stages.preprocess.registry import STAGES

    forms = []
    for name, stage in sorted(STAGES.items()):
        form = stage.model_json_schema(schema_generator=_Generator)
        form["properties"]["stage"] = {"const": name, "description": "The name of the stage."}
        form["required"] = sorted({"stage", *form.get("required", ())})
        forms.append(form)
    del schema["$defs"]["StageSettings"]
    stages = schema["properties"]["preprocess"]
    schema["properties"]["preprocess"] = stages | {
        "items": {"anyOf": forms},
        "description": "Stages that pictures pass before the network, in this order.",
    }
