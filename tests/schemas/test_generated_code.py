"""The generated protobuf code, and the position of tags in messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

SCHEMAS = Path(__file__).parents[2] / "schemas"


def test_the_generated_protobuf_code_is_current(tmp_path: Path) -> None:
    arguments = ["protoc", f"-I{SCHEMAS}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", "pointillist.proto"]
    assert protoc.main(arguments) == 0
    for name in ("pointillist_pb2.py", "pointillist_pb2.pyi"):
        assert (tmp_path / name).read_text() == (SCHEMAS / name).read_text(), (
            f"{name} differs from the code generated from the proto file"
        )


@pytest.mark.parametrize("message", ["Confirm", "Ledger", "Command", "KeyRequest", "ProbeRequest", "Refusal", "Status"])
def test_every_signed_message_ends_in_its_tag(message: str) -> None:
    from schemas import pointillist_pb2
    from schemas.keys.tags import TAG_BYTES, TAG_FIELD

    fields = getattr(pointillist_pb2, message).DESCRIPTOR.fields_by_name
    assert fields["tag"].number == max(field.number for field in fields.values())
    last = getattr(pointillist_pb2, message)(tag=0x0102030405060708, key_generation=3).SerializeToString()
    assert last[-TAG_BYTES - 1 :] == TAG_FIELD + bytes(range(8, 0, -1))


def test_the_tag_of_a_description_follows_its_fields_above_15() -> None:
    from schemas.keys.keys import derive_camera_key
    from schemas.keys.tags import TAG_BYTES, TAG_FIELD
    from schemas.messages.frame import sign_message
    from schemas.pointillist_pb2 import Meta
    from tests.producers.spool_rig import CAMERA

    key = derive_camera_key(b"a fleet secret for the tests", CAMERA, 0)
    signed = sign_message(key, Meta(width=640, stream_frame_bytes=3_110, sent_frame_bytes=4_020))
    assert signed[-TAG_BYTES - 1 : -TAG_BYTES] == TAG_FIELD
    read = Meta.FromString(signed)
    assert (read.width, read.stream_frame_bytes, read.sent_frame_bytes) == (640, 3_110, 4_020)
    assert read.tag.to_bytes(TAG_BYTES, "little") == signed[-TAG_BYTES:]
