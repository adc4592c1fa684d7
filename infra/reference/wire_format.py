"""The reference of the wire format, from `schemas/pointillist.proto` and the names of topics."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from infra.reference.markdown import code, page, paragraphs, table
from infra.settings.described import docstrings
from schemas.identity import BOOT_ID_LIMIT, SEQ_LIMIT
from schemas.limits import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_DROPPED_PER_BLOCK,
    MAX_FRAME_BYTES,
    MAX_LEDGER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SHED_RANGES,
    MAX_SIDE,
)
from schemas.messages import cloudevents
from schemas.messages.access_unit import LEAST_SIDE
from schemas.topics import ROOT, Channel, KafkaTopic

_PROTO: Final = "pointillist.proto"
_MESSAGE, _ENUM, _SYNTAX = (
    FileDescriptorProto.DESCRIPTOR.fields_by_name[name].number for name in ("message_type", "enum_type", "syntax")
)
_FIELD: Final = DescriptorProto.DESCRIPTOR.fields_by_name["field"].number
_VALUE: Final = EnumDescriptorProto.DESCRIPTOR.fields_by_name["value"].number

Comments: TypeAlias = dict[tuple[int, ...], str]
"""The comments by the path of their element, as in `SourceCodeInfo`."""


LIMITS: Final = (
    "Connect by MQTT 5, and publish with QoS 1. A `Confirm` says that Kafka holds frames; it comes with QoS 0. A "
    "PUBACK frees nothing: send each frame again until a `Confirm` names it.",
    f"A message has at most {MAX_MESSAGE_BYTES:,} bytes, a `Ledger` {MAX_LEDGER_BYTES:,} bytes and {MAX_SHED_RANGES} "
    f"ranges of `shed`, a `Meta` or `Status` {MAX_ANNOUNCEMENT_BYTES:,} bytes.",
    f"A frame has at most {MAX_FRAME_BYTES:,} values (height × width × channels), a side at most {MAX_SIDE:,} pixels, "
    f"under `VIDEO` at least {LEAST_SIDE}.",
    f"`boot_id` is above 0 and below 2^{BOOT_ID_LIMIT.bit_length() - 1}; `seq` and `captured_ms` are below "
    f"2^{SEQ_LIMIT.bit_length() - 1}; `dropped_per_block` is at most {MAX_DROPPED_PER_BLOCK}.",
)


def wire_format() -> str:
    """Return the page."""
    file = _parsed()
    said = {tuple(each.path): each.leading_comments + each.trailing_comments for each in file.source_code_info.location}
    return page(
        "The wire format",
        # Its first paragraph is for those who change the file.
        paragraphs(said[_SYNTAX,]).partition("\n\n")[2],
        "How pictures are sealed and tags are made, and who has which key: [ADR 33](../adr/0033-sealed-frames.md).",
        "## Topics of MQTT",
        f"`{ROOT}/SITE/CAMERA/CHANNEL`. [Who gets in](../operations/access.md#who-gets-in) lists the rights.",
        table(("channel", "holds"), value_rows(Channel)),
        "## Limits and delivery",
        "\n".join(f"- {line}" for line in LIMITS),
        "## Topics of Kafka",
        "The key of a record is the camera as `site/camera`, except on the models topic. That of a dead letter without "
        "a known camera is empty.",
        table(("topic", "holds"), value_rows(KafkaTopic)),
        "## Headers of Kafka's records",
        paragraphs(cloudevents.__doc__),
        "## Messages",
        *(part for number, each in enumerate(file.message_type) for part in _message(each, said, (_MESSAGE, number))),
        "## Enumerations",
        *(part for number, each in enumerate(file.enum_type) for part in _enumeration(each, said, (_ENUM, number))),
    )


def _parsed() -> FileDescriptorProto:
    """Return the file with its comments, which the generated module lacks."""
    from grpc_tools import protoc

    with TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        status = protoc.main(
            ["protoc", f"-I{files('schemas')}", "--include_source_info", f"--descriptor_set_out={made}", _PROTO]
        )
        assert status == 0, f"protoc ended with status {status}"
        [file] = FileDescriptorSet.FromString(made.read_bytes()).file
    return file


def _message(message: DescriptorProto, said: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### `{message.name}`"
    yield paragraphs(said.get(path, ""))
    rows = [
        (str(each.number), code(each.name), _kind(each), paragraphs(said.get((*path, _FIELD, number), "")))
        for number, each in enumerate(message.field)
    ]
    yield table(("number", "field", "type", "meaning"), rows)


def _enumeration(enumeration: EnumDescriptorProto, said: Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### `{enumeration.name}`"
    yield paragraphs(said.get(path, ""))
    rows = [
        (str(each.number), code(each.name), paragraphs(said.get((*path, _VALUE, number), "")))
        for number, each in enumerate(enumeration.value)
    ]
    yield table(("number", "value", "meaning"), rows)


def _kind(field: FieldDescriptorProto) -> str:
    name = field.type_name.rpartition(".")[2]
    kind = f"[`{name}`](#{name.lower()})" if name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def value_rows(kind: type[StrEnum]) -> list[tuple[str, str]]:
    """Return the rows of a table: each value with its docstring."""
    said = docstrings(kind)
    return [(code(each.value), said[each.name]) for each in kind]
