from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import Malformed
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.limits import MAX_CONTROL_BYTES, PLAIN_MESSAGE_BYTES
from schemas.messages.frame import Encoding, encode_frame, open_frame, open_own_message, parse_frame
from schemas.pointillist_pb2 import Ledger

CAMERA = CameraId("site/camera")
KEYS = KeyRing(b"a fleet secret of tests")
KEY = KEYS.current(CAMERA)


def test_a_frame_whose_length_ends_in_a_full_byte_is_opened() -> None:
    # Its length, between 127 and 128 times 2^14, takes three bytes of which the last is 127.
    picture = np.zeros((834, 832, 3), np.uint8)
    payload = encode_frame(KEY, 1, 2, 3, picture, Encoding(0))
    assert open_frame(CAMERA, payload, KEYS).height == 834


def test_a_large_message_with_a_field_of_a_number_that_no_frame_has_is_refused_before_it_is_parsed() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    payload = encode_frame(KEY, 1, 2, 3, picture, Encoding(0))
    assert len(payload) > PLAIN_MESSAGE_BYTES
    with pytest.raises(Malformed, match="whose pixels begin"):
        parse_frame(b"\x80\x01" + payload)


def test_a_control_message_of_the_largest_size_is_parsed() -> None:
    body = KEY.sign(Purpose.LEDGER, b"\xff" * (MAX_CONTROL_BYTES - 9))
    assert len(body) == MAX_CONTROL_BYTES
    with pytest.raises(Malformed, match="Ledger"):
        open_own_message(Ledger, KEY, body)
