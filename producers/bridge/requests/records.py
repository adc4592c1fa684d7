"""The requests of one kind among Kafka's events, opened one by one. An invalid request does not stop later ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog
from aiokafka import ConsumerRecord

from schemas.errors import MalformedError, WireError
from schemas.identity import CameraId, camera_id_on_wire
from schemas.keys.keys import KeyRing
from schemas.messages.frame import open_message
from schemas.pointillist_pb2 import KeyRequest, ProbeRequest, Refusal

log = structlog.get_logger()

MAX_REQUEST_BYTES: Final = 64

Request = TypeVar("Request", KeyRequest, ProbeRequest, Refusal)


def forward_records(
    records: Sequence[ConsumerRecord],
    kind: type[Request],
    keys: KeyRing,
    receive: Callable[[CameraId, Request, bytes], None],
    refuse: Callable[[str], None],
    most_bytes: int = MAX_REQUEST_BYTES,
) -> None:
    """Call `receive` with the camera, the message and its bytes for every record that is a `kind` signed under `keys`.

    For a record that is malformed, forged, or rejected by `receive` with a `WireError`, `refuse` is called with its
    kind.
    """
    ce_type = kind.DESCRIPTOR.full_name.encode()
    for record in records:
        if ("ce_type", ce_type) not in record.headers or record.key is None:
            continue
        try:
            camera_id, value = _camera(record.key), record.value or b""
            receive(camera_id, open_message(kind, camera_id, value[: most_bytes + 1], keys), value)
        except WireError as error:
            log.warning("request_rejected", kind=kind.__name__, error=str(error))
            refuse(kind.__name__)


def _camera(key: bytes) -> CameraId:
    try:
        return camera_id_on_wire(key.decode())
    except UnicodeDecodeError:
        raise MalformedError(f"expected a camera id as the record's key, got {key[:140]!r}") from None
