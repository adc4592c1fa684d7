"""The requests of one kind among Kafka's events, opened one by one; a bad one is logged and stops none after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog
from aiokafka import ConsumerRecord
from google.protobuf.message import DecodeError

from schemas.errors import ConfigError, Malformed, WireError
from schemas.identity import CameraId, camera_id_on_wire
from schemas.pointillist_pb2 import KeyRequest, ProbeRequest

log = structlog.get_logger()

MAX_REQUEST_BYTES: Final = 64

Request = TypeVar("Request", KeyRequest, ProbeRequest)


def hand_on(
    records: Sequence[ConsumerRecord], kind: type[Request], receive: Callable[[CameraId, Request], None], refusal: str
) -> None:
    """Call `receive` with the camera and the message of every record that is a `kind`.

    What is malformed, or refused by `receive` with a `WireError` or `ConfigError`, is logged as `refusal` and left out.
    """
    ce_type = kind.DESCRIPTOR.full_name.encode()
    for record in records:
        if ("ce_type", ce_type) not in record.headers or record.key is None:
            continue
        try:
            receive(*_opened(kind, record.key, record.value or b""))
        except (WireError, ConfigError) as error:
            log.warning(refusal, cause=str(error))


def _opened(kind: type[Request], camera: bytes, value: bytes) -> tuple[CameraId, Request]:
    try:
        return camera_id_on_wire(camera.decode()), kind.FromString(value[: MAX_REQUEST_BYTES + 1])
    except (UnicodeDecodeError, DecodeError):
        name = kind.DESCRIPTOR.full_name
        raise Malformed(f"expected a camera id and a {name}, got {camera[:140]!r}") from None
