"""The compatibility promise: this release reads the messages of every release since 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import pointillist_pb2
from schemas.messages.frame import Truth, decode_picture, open_frame, open_message
from schemas.messages.server_messages import open_statement
from tests.schemas.released_messages import BY_CAMERA_KEY, BY_SERVER_KEY, CAMERA, FOLDER, KEYS, fields_of, picture

RELEASES = sorted(FOLDER.glob("*.json"))
EACH = pytest.mark.parametrize("release", RELEASES, ids=lambda file: file.stem)


def content(release: Path) -> Any:
    return json.loads(release.read_text())


def test_the_first_release_is_stored() -> None:
    assert RELEASES[0].stem == "0.1.0"


@EACH
def test_frames_of_a_release_decode_to_the_cameras_picture(release: Path) -> None:
    found = content(release)["frames"]
    assert len(found) == 4
    for entry in found:
        frame = open_frame(CAMERA, bytes.fromhex(entry["payload"]), KEYS)
        rebuilt, kept = decode_picture(KEYS.current(CAMERA), frame)
        sent = np.ones_like(kept) if entry["whole"] else kept
        assert np.array_equal(rebuilt, picture() * sent[..., None])
        assert kept.mean() == pytest.approx(entry["kept"], abs=0.05)
        assert (frame.boot_id, frame.seq, frame.captured_ms, frame.whole) == (7, 3, 1234567, entry["whole"])
        assert Truth.from_wire(frame.truth) == Truth(5, sticker=True)


@EACH
def test_signed_messages_of_a_release_keep_their_meaning(release: Path) -> None:
    found = content(release)["messages"]
    assert set(found) == {kind.__name__ for kind in (*BY_CAMERA_KEY, *BY_SERVER_KEY)}
    for kind in BY_CAMERA_KEY:
        entry = found[kind.__name__]
        message: Any = open_message(kind, CAMERA, bytes.fromhex(entry["payload"]), KEYS)  # type: ignore[type-var]
        assert fields_of(message) == entry["fields"], kind
    for other in BY_SERVER_KEY:
        entry = found[other.__name__]
        statement: Any = open_statement(other, CAMERA, bytes.fromhex(entry["payload"]), KEYS)  # type: ignore[type-var]
        assert fields_of(statement) == entry["fields"], other


@EACH
def test_no_field_of_a_release_has_another_number_or_type_now(release: Path) -> None:
    # The number of a removed field must not be used again either: its name stays reserved.
    for name, fields in content(release)["fields"].items():
        kind = pointillist_pb2.DESCRIPTOR.message_types_by_name[name]
        now = {field.name: [field.number, field.type, field.is_repeated] for field in kind.fields}
        assert {field: now.get(field) for field in fields} == fields, name
    for name, values in content(release)["values"].items():
        enum = pointillist_pb2.DESCRIPTOR.enum_types_by_name[name]
        assert {value.name: value.number for value in enum.values}.items() >= values.items(), name
