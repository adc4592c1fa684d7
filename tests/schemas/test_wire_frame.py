"""Frame and control messages on the wire: round trips, limits, tags, and damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import BadSizeError, BadTagError, ConfigError, MalformedError, RevokedKeyError, WireError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, Purpose
from schemas.limits import MAX_CONTROL_BYTES, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_SIDE, PLAIN_MESSAGE_BYTES
from schemas.messages import frame as frame_module
from schemas.messages.frame import (
    Encoding,
    Signed,
    Truth,
    decode_picture,
    encode_frame,
    open_frame,
    open_message,
    open_own_message,
    sign_message,
)
from schemas.pixels.masks import kept_mask
from schemas.pointillist_pb2 import (
    LOSSLESS,
    ONLINE,
    RAW,
    Command,
    Confirm,
    Frame,
    Ledger,
    Meta,
    ProbeRequest,
    Range,
    Status,
    Turn,
)

CAMERA = CameraId("site/camera")
KEYS = KeyRing(b"a fleet secret of tests")
KEY = KEYS.current(CAMERA)
BOOT = 2**63 - 1
LARGEST_SEQ, LATEST_MS = 2**53 - 1, 2**41  # the year 2039
OPENERS: dict[type, Callable[[bytes], object]] = {
    Confirm: lambda payload: open_message(Confirm, CAMERA, payload, KEYS),
    Ledger: lambda payload: open_message(Ledger, CAMERA, payload, KEYS),
    Command: lambda payload: open_message(Command, CAMERA, payload, KEYS),
    ProbeRequest: lambda payload: open_message(ProbeRequest, CAMERA, payload, KEYS),
    Meta: lambda payload: open_message(Meta, CAMERA, payload, KEYS),
    Status: lambda payload: open_message(Status, CAMERA, payload, KEYS),
}
TRUTHS = st.none() | st.builds(Truth, st.integers(0, 1000), st.booleans(), st.booleans())


def noise(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def signed_frame(**fields: object) -> bytes:
    """Return a frame with a valid tag, any fields, and sealed pixels."""
    plain: dict[str, object] = {"boot_id": 1, "width": 1, "height": 1, "channels": 1, "pixels": b"x"}
    frame = Frame(**(plain | fields))  # type: ignore[arg-type]
    frame.pixels = bytes(KEY.opened(frame.boot_id, frame.seq, frame.pixels))
    return KEY.sign(Purpose.FRAME, frame.SerializeToString())


@settings(deadline=None, max_examples=120)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from((1, 3)),
    st.sampled_from((0, 1, 16, 45)),  # few numbers, because making their patterns takes long
    st.sampled_from((RAW, LOSSLESS)),
    st.sampled_from((0.0, 0.2, 1.0)),
    st.integers(1, 2**63 - 1),
    st.integers(0, LARGEST_SEQ),
    TRUTHS,
)
def test_the_server_opens_every_frame_that_a_camera_encodes(
    height: int,
    width: int,
    channels: int,
    dropped: int,
    profile: int,
    probe_share: float,
    boot_id: int,
    seq: int,
    truth: Truth | None,
) -> None:
    picture = noise(height, width, channels)
    encoding = Encoding(dropped, probe_share, profile)
    frame = open_frame(CAMERA, encode_frame(KEY, boot_id, seq, LATEST_MS, picture, encoding, truth), KEYS)
    assert (frame.boot_id, frame.seq, frame.captured_ms) == (boot_id, seq, LATEST_MS)
    assert (frame.height, frame.width, frame.channels) == picture.shape
    assert Truth.from_wire(frame.truth) == truth
    assert frame.whole == KEY.is_probe(boot_id, seq, probe_share)
    found, kept = decode_picture(KEY, frame)
    np.testing.assert_array_equal(kept, kept_mask(KEY, boot_id, seq, height, width, encoding.dropped_per_block))
    np.testing.assert_array_equal(found, picture if frame.whole else picture * kept[..., None])


def test_a_probe_has_all_pixels_and_the_mask_that_it_would_have_used() -> None:
    picture = noise(32, 32, 3)
    payloads = [encode_frame(KEY, BOOT, seq, 1, picture, Encoding(16, 0.25)) for seq in range(40)]
    frames = [open_frame(CAMERA, payload, KEYS) for payload in payloads]
    assert sum(frame.whole for frame in frames) == 10
    for frame in frames:
        found, kept = decode_picture(KEY, frame)
        assert kept.sum() == 768
        assert len(frame.pixels) == (3072 if frame.whole else 2304)
        np.testing.assert_array_equal(found[kept], picture[kept])


@pytest.mark.parametrize(
    ("height", "width", "seq", "share", "limit"),
    [
        (32, 32, 2**21 - 1, 0.0, 40),  # a day at 24 frames a second
        (32, 32, 2**35 - 1, 0.0, 42),
        (32, 32, 2**21 - 1, 1.0, 42),
        (24, 32, 2**35 - 1, 0.0, 44),
        (1, 1, 2**35 - 1, 1.0, 52),
        (1080, 1920, 2**35 - 1, 1.0, 52),
        (1440, 2560, 2**35 - 1, 1.0, 52),
        (8192, 1, 2**35 - 1, 1.0, 52),
    ],
)
def test_a_message_has_a_bounded_overhead_over_its_pixels(
    height: int, width: int, seq: int, share: float, limit: int
) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    payload = encode_frame(KEY, BOOT, seq, LATEST_MS, picture, Encoding(16, share), Truth(9, True))
    assert len(payload) - len(open_frame(CAMERA, payload, KEYS).pixels) <= limit


def test_only_a_traced_frame_is_longer() -> None:
    untraced, traced = (
        encode_frame(KEY, BOOT, 3, LATEST_MS, noise(16, 24, 3), Encoding(16), traced=traced) for traced in (False, True)
    )
    assert len(traced) == len(untraced) + 3
    assert [open_frame(CAMERA, payload, KEYS).traced for payload in (untraced, traced)] == [False, True]
    large = encode_frame(KEY, BOOT, 3, LATEST_MS, noise(300, 400, 3), Encoding(0), traced=True)
    assert open_frame(CAMERA, large, KEYS).traced


def test_the_largest_frame_stays_within_the_general_limit() -> None:
    key = KEYS.key(CAMERA, 2**16 - 1)
    picture = np.zeros((1440, 2560, 3), np.uint8)
    payload = encode_frame(key, BOOT, LARGEST_SEQ, LATEST_MS, picture, Encoding(56, 1.0, LOSSLESS), Truth(1000, True))
    frame = open_frame(CAMERA, payload, KEYS)
    frame.pixels = bytes(MAX_FRAME_BYTES)
    assert len(frame.SerializeToString()) - len(frame.pixels) <= 60
    assert MAX_FRAME_BYTES + 60 <= MAX_MESSAGE_BYTES


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_raise_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        open_frame(CAMERA, payload, KEYS)
    for opener in OPENERS.values():
        with pytest.raises(WireError):
            opener(payload)


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
def test_every_change_of_one_byte_is_rejected(profile: int) -> None:
    payload = encode_frame(KEY, BOOT, 300, LATEST_MS, noise(8, 8, 1), Encoding(16, 0.0, profile), Truth(3))
    for place in range(len(payload)):
        for change in (1, 0x80, 0xFF):
            mutated = bytearray(payload)
            mutated[place] ^= change
            with pytest.raises(WireError):
                open_frame(CAMERA, bytes(mutated), KEYS)
    for cut in range(len(payload)):
        with pytest.raises(WireError):
            open_frame(CAMERA, payload[:cut], KEYS)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.integers(0, 3),
    st.binary(max_size=80),
)
def test_a_signed_frame_with_any_fields_decodes_or_raises_a_wire_error(
    width: int, height: int, channels: int, dropped: int, whole: bool, profile: int, pixels: bytes
) -> None:
    for side, depth in ((2**32, 2**32), (12, 4)):
        payload = signed_frame(
            width=width % side,
            height=height % side,
            channels=channels % depth,
            dropped_per_block=dropped % 64 if side == 12 else dropped,
            whole=whole,
            profile=profile,
            pixels=pixels,
        )
        try:
            frame = open_frame(CAMERA, payload, KEYS)
            picture, kept = decode_picture(KEY, frame)
        except WireError:
            continue
        assert picture.shape == (frame.height, frame.width, frame.channels)
        assert kept.shape == picture.shape[:2]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"boot_id": 0}, MalformedError),
        ({"boot_id": 2**63}, MalformedError),
        ({"seq": 2**53}, MalformedError),
        ({"captured_ms": 2**53}, MalformedError),
        ({"width": 0}, BadSizeError),
        ({"height": MAX_SIDE + 1}, BadSizeError),
        ({"channels": 2}, BadSizeError),
        ({"channels": 4}, BadSizeError),
        ({"width": 8000, "height": 8000}, BadSizeError),
        ({"dropped_per_block": 57}, MalformedError),
        ({"profile": 3}, MalformedError),
        ({"key_generation": 2**16}, RevokedKeyError),
        ({"key_generation": 1}, BadTagError),
    ],
)
def test_a_field_out_of_its_range_raises_its_own_error(fields: dict[str, object], error: type[WireError]) -> None:
    with pytest.raises(error):
        open_frame(CAMERA, signed_frame(**fields), KEYS)


def test_a_message_above_the_size_limit_is_rejected_unread() -> None:
    with pytest.raises(BadSizeError, match=f"at most {MAX_MESSAGE_BYTES} bytes"):
        open_frame(CAMERA, bytes(MAX_MESSAGE_BYTES + 1), KEYS)


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("size", [(300, 400), (834, 832)])  # the length of the second ends in a full byte
def test_a_large_frame_is_accepted(profile: int, share: float, size: tuple[int, int]) -> None:
    key = KEYS.key(CAMERA, 2**16 - 1)
    payload = encode_frame(
        key, BOOT, 2**53 - 1, LATEST_MS, noise(*size, 3), Encoding(16, share, profile), Truth(9, attacked=True)
    )
    assert len(payload) > PLAIN_MESSAGE_BYTES
    assert open_frame(CAMERA, payload, KEYS).whole == (share == 1)


def repeat_field(field: bytes) -> bytes:
    return field * (PLAIN_MESSAGE_BYTES // len(field) + 1)


LARGE = encode_frame(KEY, BOOT, 1, 1, noise(300, 400, 3), Encoding(0))


@pytest.mark.parametrize(
    "payload",
    [
        repeat_field(b"\x10\x01"),  # seq, over and over
        repeat_field(b"\x80\x01\x00"),  # a field that no message has
        repeat_field(b"\x72\x00"),  # empty pixels
        repeat_field(b"\x80"),  # a number without end
        b"\x72" + repeat_field(b"\xff"),  # a length without end
        repeat_field(b"\x0b\x0c"),  # groups
        b"\x62\x04\x72\x80\x80\x04" + bytes(2**16 + 9),  # a length within another field
        b"\x80\x01" + LARGE,
        LARGE + b"\x10\x01",
        LARGE[:-9] + repeat_field(b"\x10\x01") + LARGE[-9:],
        repeat_field(b"\x10\x01") + LARGE,
    ],
)
def test_a_large_message_without_mostly_pixels_is_rejected_unparsed(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_module, "Frame", None)
    with pytest.raises(MalformedError, match="whose pixels begin within"):
        open_frame(CAMERA, payload, KEYS)


@pytest.mark.parametrize("kind", list(OPENERS))
def test_a_control_message_above_its_size_limit_is_rejected_unparsed(kind: type) -> None:
    largest = KEY.sign(Purpose.LEDGER, b"\xff" * (MAX_CONTROL_BYTES - 9))
    with pytest.raises(MalformedError, match="Ledger"):
        open_own_message(Ledger, KEY, largest)
    payload = b"\xff" * (MAX_CONTROL_BYTES + 1)
    for opener in (OPENERS[kind], lambda payload: open_own_message(kind, KEY, payload)):
        with pytest.raises(BadSizeError, match=f"at most {MAX_CONTROL_BYTES} bytes of {kind.__name__}"):
            opener(payload)


def test_a_camera_parses_only_signed_messages() -> None:
    with pytest.raises(BadTagError):
        open_own_message(Confirm, KEY, b"\xff" * 1000)


def test_a_frame_of_one_camera_is_rejected_for_another() -> None:
    payload = encode_frame(KEY, 1, 0, 0, noise(4, 4, 3), Encoding())
    with pytest.raises(BadTagError, match="site/other"):
        open_frame(CameraId("site/other"), payload, KEYS)


def test_a_camera_rejects_a_picture_that_no_message_can_carry() -> None:
    with pytest.raises(BadSizeError):
        encode_frame(KEY, 1, 0, 0, np.zeros((4, 4, 2), np.uint8), Encoding())


@pytest.mark.parametrize(
    "fields", [{"dropped_per_block": 57}, {"dropped_per_block": -1}, {"probe_share": 1.5}, {"profile": 9}]
)
def test_settings_out_of_range_are_config_errors(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Encoding(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        Confirm(boot_id=BOOT, ranges=[Range(first=0, last=7), Range(first=9, last=9)], ledger_revision=4),
        Ledger(boot_id=BOOT, revision=2, next=8, shed=[Range(first=1, last=2)], closed=True),
        Command(issued_ms=5, probe_share=0.0, enabled=False),
        ProbeRequest(issued_ms=5, probe_share=0.5),
        Meta(boot_id=BOOT, width=32, turn=Turn(connection=1, message=2, at_ms=3)),
        Status(boot_id=BOOT, state=ONLINE, turn=Turn(connection=1, message=2, at_ms=3)),
    ],
)
def test_control_messages_are_valid_only_for_their_camera_and_kind(message: Signed) -> None:
    payload = sign_message(KEY, message)
    for found in (open_message(type(message), CAMERA, payload, KEYS), open_own_message(type(message), KEY, payload)):
        found.ClearField("tag")
        assert found == message
    with pytest.raises(BadTagError):
        open_message(type(message), CameraId("site/other"), payload, KEYS)
    for kind, opener in OPENERS.items():
        if kind is not type(message):
            with pytest.raises(WireError):
                opener(payload)


@pytest.mark.parametrize("attacked", [False, True])
@pytest.mark.parametrize("truth", [Truth(0), Truth(0, True), Truth(41), Truth(41, True)])
def test_ground_truth_can_be_read_again_and_differs_from_none(truth: Truth, attacked: bool) -> None:
    truth = truth._replace(attacked=attacked)
    assert 0 < truth.to_wire() < 2**32
    assert Truth.from_wire(truth.to_wire()) == truth


def test_no_ground_truth_is_read_as_none() -> None:
    assert Truth.from_wire(0) is None
