"""The JSON Schema of the device discovery messages that Home Assistant accepts.

After https://www.home-assistant.io/integrations/mqtt/ (device discovery payload), .../sensor.mqtt/ and
.../binary_sensor.mqtt/: the documented options of each, and which of them are required. Home Assistant silently ignores
an unknown option of an entity, and rejects the whole message for an unknown option of a device. Here both are errors.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_TOPIC = {"type": "string", "pattern": "^[^+#\\x00]+$"}
_SHARED = {
    "availability": {"type": "array"},
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "availability_template": _TEXT,
    "availability_topic": _TOPIC,
    "payload_available": _TEXT,
    "payload_not_available": _TEXT,
    "state_topic": _TOPIC,
    "encoding": _TEXT,
    "qos": {"enum": [0, 1, 2]},
}
_ENTITY = _SHARED | {
    "platform": _TEXT,
    "name": {"type": ["string", "null"]},
    "unique_id": _TEXT,
    "default_entity_id": _TEXT,
    "enabled_by_default": {"type": "boolean"},
    "entity_category": {"enum": ["config", "diagnostic"]},
    "entity_picture": _TEXT,
    "expire_after": {"type": "integer", "minimum": 0},
    "force_update": {"type": "boolean"},
    "icon": {"type": "string", "pattern": "^mdi:[a-z-]+$"},
    "json_attributes_topic": _TOPIC,
    "json_attributes_template": _TEXT,
    "value_template": _TEXT,
}
_SENSOR = _ENTITY | {
    "platform": {"const": "sensor"},
    "device_class": {"enum": ["data_size", "enum", "temperature", "timestamp"]},
    "last_reset_value_template": _TEXT,
    "options": {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True},
    "state_class": {"enum": ["measurement", "total", "total_increasing"]},
    "suggested_display_precision": {"type": "integer", "minimum": 0},
    "unit_of_measurement": _TEXT,
}
_BINARY_SENSOR = _ENTITY | {
    "platform": {"const": "binary_sensor"},
    "device_class": {"enum": ["connectivity", "occupancy", "problem", "safety", "tamper"]},
    "off_delay": {"type": "integer", "minimum": 0},
    "payload_off": _TEXT,
    "payload_on": _TEXT,
}


def _entity(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    # `state_topic` is not required: the device may give it once for all entities.
    return {
        "type": "object",
        "properties": options,
        "additionalProperties": False,
        "required": ["platform", "unique_id"],
        **more,
    }


_HAS_A_UNIT = {"required": ["unit_of_measurement"]}
_ENUM = {"properties": {"device_class": {"const": "enum"}}, "required": ["device_class"]}
DEVICE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["device", "origin", "components"],
    "properties": _SHARED
    | {
        "command_topic": _TOPIC,
        "device": {
            "type": "object",
            "additionalProperties": False,
            "anyOf": [{"required": ["identifiers"]}, {"required": ["connections"]}],
            "properties": {
                "configuration_url": {"type": "string", "pattern": "^(https?|homeassistant)://"},
                "connections": {"type": "array"},
                "identifiers": {"type": "array", "items": _TEXT, "minItems": 1},
                **dict.fromkeys(
                    (
                        "hw_version", "manufacturer", "model", "model_id", "name", "serial_number", "suggested_area",
                        "sw_version", "via_device",
                    ),
                    _TEXT,
                ),
            },
        },
        "origin": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": _TEXT, "sw_version": _TEXT, "support_url": _TEXT},
        },
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "oneOf": [
                    # A list of options belongs to an enumeration, which has neither a unit nor a class of state.
                    _entity(
                        _SENSOR,
                        **{
                            "if": _ENUM,
                            "then": {
                                "required": ["options"],
                                "not": {"anyOf": [_HAS_A_UNIT, {"required": ["state_class"]}]},
                            },
                            "else": {"not": {"required": ["options"]}},
                        },
                    ),
                    _entity(_BINARY_SENSOR),
                ]
            },
        },
    },
}  # fmt: skip
DISCOVERY_TOPIC = r"homeassistant/device/[a-zA-Z0-9_-]+/config"
