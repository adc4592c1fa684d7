"""Frames on the wire: encode and seal at the camera, verify at the bridge, verify and open at the processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from schemas.errors import BadSizeError, ConfigError, MalformedError
from schemas.identity import BOOT_ID_LIMIT, SEQ_LIMIT, CameraId
from schemas.keys.keys import TAG_BYTES, CameraKey, KeyRing, Purpose
from schemas.limits import (
    MAX_CONTROL_BYTES,
    MAX_DROPPED_PER_BLOCK,
    MAX_FRAME_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SIDE,
    PLAIN_MESSAGE_BYTES,
)
from schemas.messages.access_unit import check_video_size
from schemas.messages.moving import check_moving
from schemas.pixels.masks import Mask, kept_mask
from schemas.pixels.packing import Picture, packed, unpack
from schemas.pointillist_pb2 import (
    LOSSLESS,
    RAW,
    VIDEO,
    Command,
    Confirm,
    Frame,
    KeyRequest,
    Ledger,
    Meta,
    ProbeRequest,
    Refusal,
    Status,
    View,
)
from schemas.varint import varint

CHANNELS: Final = (1, 3)
TIME_LIMIT: Final = 2**53
PROFILES: Final = {"raw": RAW, "lossless": LOSSLESS, "video": VIDEO}
"""Profiles by their names in settings."""
PROFILE_NAMES: Final = {number: name for name, number in PROFILES.items()}
KEYED_PROFILES: frozenset[int] = frozenset({VIDEO})
"""Profiles whose frames depend on a key frame: neither `raw` nor `lossless`."""
_PROFILE_NUMBERS: Final = frozenset(PROFILES.values())
ATTACKED: Final = 2**31
"""Flag in the field `truth` for a picture that the red team changed; a class is below half of it."""

_MOST_HEADER_BYTES: Final = 96
_PIXELS_FIELD: Final = 14 << 3 | 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
"""Sizes of protobuf's fixed-size wire types."""

Signed = TypeVar("Signed", Confirm, Ledger, Command, KeyRequest, ProbeRequest, Refusal, Meta, Status, View)
_PURPOSES: Final[dict[type[Message], Purpose]] = {
    Confirm: Purpose.CONFIRM,
    Ledger: Purpose.LEDGER,
    Command: Purpose.COMMAND,
    KeyRequest: Purpose.KEY_REQUEST,
    ProbeRequest: Purpose.PROBE_REQUEST,
    Refusal: Purpose.REFUSAL,
    Meta: Purpose.META,
    Status: Purpose.STATUS,
    View: Purpose.VIEW,
}


class Truth(NamedTuple):
    """A simulated source's ground truth about its frame; it never reaches a stage."""

    class_id: int
    sticker: bool = False
    attacked: bool = False
    """True if a generator of the red team changed the picture."""

    @property
    def clean(self) -> bool:
        """True if neither a sticker nor an attack may mislead the network."""
        return not (self.sticker or self.attacked)

    def to_wire(self) -> int:
        """Return the integer of the field `truth`."""
        return 1 + 2 * self.class_id + self.sticker + ATTACKED * self.attacked

    @classmethod
    def from_wire(cls, value: int) -> Truth | None:
        """Read the field `truth` back; None if there is no ground truth."""
        if not value:
            return None
        shown = (value - 1) % ATTACKED
        return cls(shown >> 1, bool(shown & 1), value > ATTACKED)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a camera's frames: the settings that may change from frame to frame."""

    dropped_per_block: int = 16
    probe_share: float = 0.0
    profile: int = RAW

    def __post_init__(self) -> None:
        if not 0 <= self.dropped_per_block <= MAX_DROPPED_PER_BLOCK:
            raise ConfigError(
                f"dropped pixels a block: expected 0 to {MAX_DROPPED_PER_BLOCK}, got {self.dropped_per_block}. "
                "Correct the drop ratio."
            )
        if not 0 <= self.probe_share <= 1:
            raise ConfigError(f"probe share: expected 0 to 1, got {self.probe_share}. Correct it.")
        if self.profile not in PROFILES.values():
            raise ConfigError(f"profile: expected one of {PROFILES}, got {self.profile}. Correct it.")


def check_frame_size(height: int, width: int, channels: int) -> None:
    """Raise `BadSizeError` unless a frame of this size may be sent."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and channels in CHANNELS):
        raise BadSizeError(f"expected sides from 1 to {MAX_SIDE} and 1 or 3 channels, got {height}x{width}x{channels}")
    if height * width * channels > MAX_FRAME_BYTES:
        raise BadSizeError(f"expected at most {MAX_FRAME_BYTES} bytes a frame, got {height}x{width}x{channels}")


def encode_frame(
    key: CameraKey,
    boot_id: int,
    seq: int,
    captured_ms: int,
    picture: Picture,
    encoding: Encoding,
    truth: Truth | None = None,
    moving: int = 0,
    *,
    traced: bool = False,
) -> bytes:
    """Return the sealed and signed message of a `picture` (H, W, C) uint8: its kept pixels, or all in a probe.

    `moving` is a box as `schemas.messages.moving` packs it. A `traced` frame is three bytes longer.
    """
    height, width, channels = picture.shape
    check_frame_size(height, width, channels)
    whole = key.is_probe(boot_id, seq, encoding.probe_share)
    kept = kept_mask(key, boot_id, seq, height, width, 0 if whole else encoding.dropped_per_block)
    message = Frame(
        boot_id=boot_id,
        seq=seq,
        captured_ms=captured_ms,
        width=width,
        height=height,
        channels=channels,
        dropped_per_block=encoding.dropped_per_block,
        whole=whole,
        profile=encoding.profile,  # type: ignore[arg-type]  # checked in Encoding
        truth=truth.to_wire() if truth else 0,
        moving=moving,
        traced=traced,
    )
    return seal_frame(key, message, packed(picture, kept, encoding.profile))


def seal_frame(key: CameraKey, message: Frame, pixels: bytes | memoryview) -> bytes:
    """Return the sealed and signed message of a frame: the fields of `message`, and its packed `pixels`.

    Seal once for each boot and sequence number: see `producers.camera.sealing`.
    """
    message.key_generation = key.generation
    if message.height == message.width:
        message.height = 0
    # The last field before the tag is written here, because protobuf would copy the pixels three more times.
    head = message.SerializeToString()
    if len(pixels):
        head += bytes((_PIXELS_FIELD,)) + varint(len(pixels))
    return key.seal_frame(message.boot_id, message.seq, head, pixels)


def parse_frame(payload: bytes) -> Frame:
    """Parse and check a frame message without its tag; `WireError` if a field is out of its range."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise BadSizeError(f"expected at most {MAX_MESSAGE_BYTES} bytes a message, got {len(payload)}")
    if len(payload) > PLAIN_MESSAGE_BYTES:
        _check_mostly_pixels(payload)
    try:
        frame = Frame.FromString(payload)
    except DecodeError:
        raise MalformedError("expected a pointillist.v1.Frame") from None
    if not (0 < frame.boot_id < BOOT_ID_LIMIT and frame.seq < SEQ_LIMIT and frame.captured_ms < TIME_LIMIT):
        raise MalformedError(
            "expected 0 < boot_id < 2**63, seq and captured_ms < 2**53, "
            f"got {frame.boot_id}, {frame.seq}, {frame.captured_ms}"
        )
    frame.height = frame.height or frame.width
    check_frame_size(frame.height, frame.width, frame.channels)
    if frame.dropped_per_block > MAX_DROPPED_PER_BLOCK:
        raise MalformedError(
            f"expected at most {MAX_DROPPED_PER_BLOCK} dropped pixels a block, got {frame.dropped_per_block}"
        )
    if frame.profile not in _PROFILE_NUMBERS:
        raise MalformedError(f"expected one of the profiles {PROFILES}, got {frame.profile}")
    if frame.key_distance and not (
        frame.profile in KEYED_PROFILES and not frame.whole and frame.key_distance <= frame.seq
    ):
        raise MalformedError(
            f"expected key distance 0, or up to {frame.seq} in a frame of a keyed profile that is not a probe, "
            f"got {frame.key_distance}, profile {frame.profile}, whole {frame.whole}"
        )
    if frame.profile == VIDEO:
        check_video_size(frame.height, frame.width)
        if bool(frame.place) != bool(frame.key_distance) or frame.place > frame.key_distance:
            raise MalformedError(
                f"expected a place from 1 to {frame.key_distance}, or 0 in a key frame and a probe, got {frame.place}"
            )
    elif frame.place:
        raise MalformedError(f"expected place 0 outside of the profile video, got {frame.place}")
    check_moving(frame.moving)
    return frame


def _check_mostly_pixels(payload: bytes) -> None:
    """Raise `MalformedError` unless the pixels fill all but the first few bytes and the tag, as in a message of `sign`.

    A message of 15 MiB of tiny fields takes half a second to parse, 30 times as long as a frame of that size. Anyone
    can send one: the key of the tag is in the message and is only available after parsing.
    """
    header = payload[:_MOST_HEADER_BYTES]
    at = 0
    try:
        while (field := header[at]) < 128 or header[at + 1] < 128:
            at += 1 + (field > 127)
            if field == _PIXELS_FIELD:
                length = shift = 0
                while (byte := header[at]) > 127:
                    at += 1
                    length |= (byte & 127) << shift
                    shift += 7
                if at + 1 + (length | byte << shift) + 1 + TAG_BYTES == len(payload):
                    return
                break
            if field & 7:
                at += _FIXED_BYTES[field & 7]
            else:
                while header[at] > 127:
                    at += 1
                at += 1
    except (IndexError, KeyError):
        pass
    raise MalformedError(
        f"expected a pointillist.v1.Frame whose pixels begin within {_MOST_HEADER_BYTES} bytes and end before its tag, "
        f"got {len(payload)} other bytes"
    )


def frame_message(frame: Frame) -> bytes:
    """Return a parsed frame as it came, with its tag."""
    sent = Frame()
    sent.CopyFrom(frame)
    if sent.height == sent.width:
        sent.height = 0
    # protobuf writes fields by their numbers: the pixels and the tag come last.
    sent.ClearField("tag")
    sent.ClearField("pixels")
    last = Frame(pixels=frame.pixels, tag=frame.tag)
    return sent.SerializeToString() + last.SerializeToString()


def open_frame(camera_id: CameraId, payload: bytes, keys: KeyRing) -> Frame:
    """Parse, check and verify a frame; `WireError` gives the reason of a rejection."""
    return open_keyed_frame(camera_id, payload, keys)[0]


def open_keyed_frame(camera_id: CameraId, payload: bytes, keys: KeyRing) -> tuple[Frame, CameraKey]:
    """Return the result of `open_frame`, and the key that signed the frame."""
    frame = parse_frame(payload)
    key = keys.key(camera_id, frame.key_generation)
    key.verify(Purpose.FRAME, payload)
    return frame, key


def opened_pixels(key: CameraKey, frame: Frame) -> memoryview:
    """Return the pixels of a verified frame as its camera packed them; in the message they are sealed."""
    # protobuf copies the bytes on each access.
    return key.opened(frame.boot_id, frame.seq, frame.pixels)


def is_key_frame(frame: Frame) -> bool:
    """Return whether other frames may depend on this one."""
    return frame.profile in KEYED_PROFILES and not frame.whole and not frame.key_distance


def mask_seq(frame: Frame) -> int:
    """Return the sequence number that seeds a frame's mask: under `video`, that of its group's key frame."""
    return frame.seq - frame.key_distance if frame.profile == VIDEO else frame.seq


def group_of(payload: bytes) -> int | None:
    """Return the sequence number of the key frame of a message's group; None for a probe under `video`.

    A frame of another profile is a group by itself. Nothing of the message is verified; a damaged one belongs to none.
    """
    try:
        frame = Frame.FromString(payload)
    except DecodeError:
        return None
    if frame.profile not in KEYED_PROFILES:
        return frame.seq
    return None if frame.whole else frame.seq - frame.key_distance


def check_key_frame(frame: Frame, key_frame: Frame) -> None:
    """Raise `MalformedError` unless `frame` can depend on `key_frame`."""
    if not is_key_frame(key_frame) or _setup(frame) != _setup(key_frame):
        raise MalformedError(
            f"expected a key frame of height, width, channels, dropped pixels and key generation {_setup(frame)}, "
            f"got profile {key_frame.profile}, whole {key_frame.whole}, {_setup(key_frame)}"
        )


def _setup(frame: Frame) -> tuple[int, int, int, int, int]:
    return frame.height, frame.width, frame.channels, frame.dropped_per_block, frame.key_generation


def decode_picture(key: CameraKey, frame: Frame) -> tuple[Picture, Mask]:
    """Return a verified frame's picture (H, W, C), zero at dropped pixels, and its mask (H, W), True at kept pixels.

    A probe is a whole picture; its mask is the one that the camera's drop would have used.
    """
    height, width = frame.height, frame.width
    kept = kept_mask(key, frame.boot_id, frame.seq, height, width, frame.dropped_per_block)
    sent = kept if not frame.whole else kept_mask(key, frame.boot_id, frame.seq, height, width, 0)
    return unpack(opened_pixels(key, frame), sent, frame.channels, frame.profile), kept


def sign_message(
    key: CameraKey, message: Confirm | Ledger | Command | KeyRequest | ProbeRequest | Refusal | Meta | Status | View
) -> bytes:
    """Serialise and sign a control message under `key`."""
    message.key_generation = key.generation
    message.ClearField("tag")
    return key.sign(_PURPOSES[type(message)], message.SerializeToString())


def parse_message(kind: type[Signed], payload: bytes) -> Signed:
    """Parse a control message without its tag; `BadSizeError`, before parsing, if it is too large."""
    _check_control_size(kind, payload)
    try:
        return kind.FromString(payload)
    except DecodeError:
        raise MalformedError(f"expected a pointillist.v1.{kind.__name__}") from None


def open_message(kind: type[Signed], camera_id: CameraId, payload: bytes, keys: KeyRing) -> Signed:
    """Parse and verify a control message on the server."""
    message = parse_message(kind, payload)
    keys.key(camera_id, message.key_generation).verify(_PURPOSES[kind], payload)
    return message


def open_own_message(kind: type[Signed], key: CameraKey, payload: bytes) -> Signed:
    """Verify and then parse a control message at the camera, which has one key."""
    _check_control_size(kind, payload)
    key.verify(_PURPOSES[kind], payload)
    return parse_message(kind, payload)


def _check_control_size(kind: type[Signed], payload: bytes) -> None:
    if len(payload) > MAX_CONTROL_BYTES:
        raise BadSizeError(f"expected at most {MAX_CONTROL_BYTES} bytes of {kind.__name__}, got {len(payload)}")
