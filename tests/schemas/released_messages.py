"""The messages of a release: `python -m tests.schemas.released_messages 0.1.0` stores those of this one.

Run the command once for each release. Later releases must read the files and never change one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from schemas import pointillist_pb2
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.messages.frame import Encoding, Truth, encode_frame, sign_message
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import (
    LOSSLESS,
    RAW,
    Alert,
    Command,
    Comparison,
    Confirm,
    DeadLetter,
    KeyRequest,
    Ledger,
    Meta,
    ProbeRequest,
    Refusal,
    Status,
    Verdict,
    View,
)

FOLDER: Final = Path(__file__).parent / "released"
CAMERA: Final = CameraId("site/camera")
KEYS: Final = KeyRing(bytes(range(32)))
BY_CAMERA_KEY: Final = (Confirm, Ledger, Command, KeyRequest, ProbeRequest, Refusal, Meta, Status, View)
BY_SERVER_KEY: Final = (Verdict, DeadLetter, Alert, Comparison)
_USUAL: Final[dict[int, Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_DOUBLE: 0.25,
    FieldDescriptor.CPPTYPE_FLOAT: 0.25,
    FieldDescriptor.CPPTYPE_ENUM: 1,
}


def filled_message(kind: type[Message], depth: int = 0) -> Message:
    """Return a message with a value in every field and one entry in every list."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if depth < 3:
                inner = filled_message(getattr(pointillist_pb2, field.message_type.name), depth + 1)
                place = getattr(message, field.name)
                place.append(inner) if field.is_repeated else place.CopyFrom(inner)
            continue
        value = b"bytes" if field.type == FieldDescriptor.TYPE_BYTES else _USUAL.get(field.cpp_type, field.number + 2)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture whose sides are no multiples of eight."""
    rows, columns, channels = np.indices((21, 35, 3))
    return np.asarray((rows * rows * 3 + columns * (2 + channels)) % 256, np.uint8)


def fields_of(message: Message) -> Any:
    """Return the fields of a message as JSON."""
    return MessageToDict(message, preserving_proto_field_name=True)


def release_messages() -> dict[str, Any]:
    """Return all messages of this release: their bytes on the wire and their decoded fields."""
    key = KEYS.current(CAMERA)
    frames = []
    for profile in (RAW, LOSSLESS):
        for share in (0.0, 1.0):
            payload = encode_frame(key, 7, 3, 1234567, picture(), Encoding(16, share, profile), Truth(5, sticker=True))
            frames.append({"payload": payload.hex(), "kept": 3 / 4, "whole": share == 1.0})
    messages: dict[str, Any] = {}
    for kind in BY_CAMERA_KEY:
        message: Any = filled_message(kind)
        message.key_generation = 0
        messages[kind.__name__] = {"payload": sign_message(key, message).hex()}
    for other in BY_SERVER_KEY:
        statement: Any = filled_message(other)
        messages[other.__name__] = {"payload": sign_statement(KEYS, CAMERA, statement).hex()}
    for name, entry in messages.items():
        entry["fields"] = fields_of(getattr(pointillist_pb2, name).FromString(bytes.fromhex(entry["payload"])))
    fields = {
        kind.name: {
            field.name: [field.number, field.type, field.is_repeated]
            for field in kind.fields
        }
        for kind in pointillist_pb2.DESCRIPTOR.message_types_by_name.values()
    }  # fmt: skip
    values = {
        enum.name: {value.name: value.number for value in enum.values}
        for enum in pointillist_pb2.DESCRIPTOR.enum_types_by_name.values()
    }
    return {"frames": frames, "messages": messages, "fields": fields, "values": values}


def main() -> None:
    """Store the messages of this release."""
    file = FOLDER / f"{sys.argv[1]}.json"
    if file.exists():
        raise SystemExit(f"{file}: expected no file, got one. The messages of a release never change.")
    file.write_text(json.dumps(release_messages(), indent=1) + "\n")


if __name__ == "__main__":
    main()
