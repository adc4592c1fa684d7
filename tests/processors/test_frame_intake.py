from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from processors.arrivals.job import open_record
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing
from schemas.messages.frame import Encoding, encode_frame

CAMERA = CameraId("site/door")


@dataclass
class Record:
    value: bytes | None
    partition: int = 3
    offset: int = 9
    key: bytes | None = CAMERA.encode()
    headers: Sequence[tuple[str, bytes]] = (("ce_id", b"x"), ("traceparent", b"00-1-2-01"))


class CountingRing(KeyRing):
    lookups = 0

    def key(self, camera_id: CameraId, generation: int) -> CameraKey:
        self.lookups += 1
        return super().key(camera_id, generation)


def test_a_record_is_opened_with_one_look_at_the_keys() -> None:
    keys = CountingRing(b"a fleet secret of tests")
    key = KeyRing(b"a fleet secret of tests").key(CAMERA, 2)
    payload = encode_frame(key, 7, 5, 1000, np.zeros((8, 16, 3), np.uint8), Encoding(16))
    taken = open_record(Record(payload), keys)
    assert keys.lookups == 1
    assert taken.key.export() == key.export()
    assert (taken.identity, taken.shape, taken.frame_bytes) == ((CAMERA, 7, 5), (8, 16, 3), len(payload))
    assert (taken.partition, taken.offset, taken.traceparent) == (3, 9, b"00-1-2-01")
