"""Groups of pictures: the frames of one camera under the profile `video`, each encoded for its place in the spool.

A group begins with a key frame, whose boot and sequence number seed the mask of all its frames. It ends

- after `group_frames` frames or `group_s` seconds,
- when the server requests a key frame, or the spool sheds frames of the group (`end`),
- with another size, drop, colour or boot,
- at a change of scene, where a prediction from the previous picture would cost more than it saves, unless the bytes a
  second are limited: each group begins with most of the bytes that are left,
- if the bytes a second are limited, and frames come faster than the encoder was set up for,
- after an error.

A probe is encoded alone and belongs to no group.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from producers.video.byte_limit import ByteLimit
from producers.video.video_settings import VideoSettings
from schemas.keys.keys import CameraKey
from schemas.messages.access_unit import AccessUnit, Codec, check_video_size, pack_unit
from schemas.messages.frame import Encoding, Truth, check_frame_size, seal_frame
from schemas.pixels.fill import Fill
from schemas.pixels.masks import Mask, kept_mask
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Colour, Planes
from schemas.pointillist_pb2 import VIDEO, Frame

if TYPE_CHECKING:
    from producers.video.encoder import Encoder

_log = structlog.get_logger()

VIDEO_FROM: Final = 128
"""Minimum shorter side of a picture that a camera encodes under the profile `video`. It sends smaller ones raw."""
USUAL_RATE: Final = 25.0
"""Frames a second if the camera's rate is not set. The rate scales the limit of bytes a second, and H.264's quality."""
_LOWEST_RATE: Final = 1 / 1000
"""Lowest frames a second of H.264: FFmpeg rounds lower ones to 0, and encodes as if there were thousands."""
_AV1_RATES: Final = 1.0, 240.0
"""Lowest and highest frames a second of SVT-AV1, whose quality does not depend on them."""
SCENE_CHANGE: Final = 32.0
"""Mean difference of two pictures' luma, in levels, from which a new group begins."""
_SAMPLED: Final = 8
"""Rows and columns between two samples of that difference."""
_LEAST_SHARED: Final = 32
"""Fewest samples that two pictures under different masks must share for a comparison: fewer are equal by chance."""
_FINER: Final = 0.25
"""Rate factors of H.264 below the chosen one: noise of the codec at kept pixels spreads into the rebuilt ones."""

Samples = NDArray[np.int16]


class _Setup(NamedTuple):
    """The properties that all frames of a group share."""

    boot_id: int
    shape: tuple[int, int, int]
    dropped_per_block: int
    colour: Colour
    rate: float


class _SampledPicture(NamedTuple):
    """Every `_SAMPLED`-th row and column of a filled picture."""

    setup: _Setup
    luma: Samples
    kept: Mask
    """True at samples that were not filled."""


class _Group:
    """The open group."""

    def __init__(self, setup: _Setup, seq: int, captured_ms: int, fill: Fill, encoder: Encoder) -> None:
        self.setup = setup
        self.seq = seq
        self.captured_ms = captured_ms
        self.fill = fill
        self.encoder = encoder
        self.place = 0
        """The place of the group's next frame."""

    def sampled(self, filled: Planes) -> _SampledPicture:
        """Return the samples of a picture of this group."""
        luma = filled.luma[::_SAMPLED, ::_SAMPLED].astype(np.int16)
        return _SampledPicture(self.setup, luma, self.fill.kept[::_SAMPLED, ::_SAMPLED])


class GroupEncoder:
    """The encoder of one camera's frames. Encode each frame once, in the order of sequence numbers."""

    def __init__(self, key: CameraKey, settings: VideoSettings, rate: float = 0.0) -> None:
        """`rate` is in frames a second, 0 if it is not set."""
        self._key = key
        self._settings = settings
        self.set_rate(rate)
        most = settings.max_bytes_per_second if settings.codec_number is Codec.H264 else None
        self._limit = None if most is None else ByteLimit(most)
        self._group: _Group | None = None
        self._last: _SampledPicture | None = None
        """Samples of the last picture, which may be of an earlier group."""
        self._software_only = settings.hardware == "none"

    @property
    def group(self) -> tuple[int, int] | None:
        """Boot and sequence number of the open group's key frame."""
        return None if self._group is None else (self._group.setup.boot_id, self._group.seq)

    def set_rate(self, rate: float) -> None:
        """Set the frames a second, 0 if unknown. At another rate, the next frame is a key frame."""
        self._is_rate_known = rate > 0
        self._rate = rate or USUAL_RATE

    def end(self) -> None:
        """End the group: the next frame is a key frame."""
        group, self._group = self._group, None
        if group is not None:
            group.encoder.close()

    def encode(
        self,
        picture: Picture | Planes,
        boot_id: int,
        seq: int,
        captured_ms: int,
        encoding: Encoding,
        truth: Truth | None = None,
        moving: int = 0,
        *,
        traced: bool = False,
    ) -> bytes:
        """Return the sealed and signed message of a picture: RGB or grey (H, W, C) uint8, or planes.

        Raises `BadSizeError` for a size that cannot be sent, `SourceError` if the encoder fails. After an error the
        group is over.
        """
        shape = picture.shape
        check_frame_size(*shape)
        check_video_size(*shape[:2])
        colour = picture.colour if isinstance(picture, Planes) else Colour.BT601_FULL
        message = Frame(
            boot_id=boot_id,
            seq=seq,
            captured_ms=captured_ms,
            width=shape[1],
            height=shape[0],
            channels=shape[2],
            dropped_per_block=encoding.dropped_per_block,
            profile=VIDEO,
            truth=truth.to_wire() if truth else 0,
            moving=moving,
            traced=traced,
        )
        if self._key.is_probe(boot_id, seq, encoding.probe_share):
            from producers.video.encoder import encode_alone

            message.whole = True
            pixels = pack_unit(AccessUnit(Codec.H264, colour, encode_alone(unmasked(picture))))
        else:
            setup = _Setup(boot_id, shape, encoding.dropped_per_block, colour, self._rate)
            try:
                pixels = pack_unit(self._encode(picture, message, setup))
            except BaseException:
                self.end()
                raise
        payload = seal_frame(self._key, message, pixels)
        if self._limit is not None and not message.whole:
            self._limit.spend(len(payload))
        return payload

    def _encode(self, picture: Picture | Planes, message: Frame, setup: _Setup) -> AccessUnit:
        """Encode a picture in its group, and write its place to `message`."""
        group = self._group
        if self._limit is not None:
            self._limit.refill(message.captured_ms)
        if group is not None and self._is_over(group, message, setup):
            self.end()
            group = None
        change, is_cut = None, False
        if group is not None:
            filled = _filled(group.fill, picture)
            samples = group.sampled(filled)
            change = _change(self._last, samples, is_same_mask=True)
            is_cut = self._settings.max_bytes_per_second is None and change is not None and change >= SCENE_CHANGE
        if group is None or is_cut:
            self.end()
            group = self._group = self._begin(message, setup)
            filled = _filled(group.fill, picture)
            samples = group.sampled(filled)
            change = None if is_cut else _change(self._last, samples, is_same_mask=False)
        data = group.encoder.encode(filled)
        message.key_distance, message.place = message.seq - group.seq, group.place
        group.place += 1
        self._last = samples
        return AccessUnit(group.encoder.codec, setup.colour, data, change)

    def _is_over(self, group: _Group, message: Frame, setup: _Setup) -> bool:
        most = self._settings
        lasted_s = (message.captured_ms - group.captured_ms) / 1000
        if self._limit is not None and not self._is_rate_known and self._limit.is_ahead:
            return True
        return group.setup != setup or group.place >= most.group_frames or not 0 <= lasted_s < most.group_s

    def _begin(self, message: Frame, setup: _Setup) -> _Group:
        height, width, _ = setup.shape
        kept = kept_mask(self._key, message.boot_id, message.seq, height, width, setup.dropped_per_block)
        return _Group(setup, message.seq, message.captured_ms, Fill(kept), self._encoder(height, width, setup.rate))

    def _encoder(self, height: int, width: int, rate: float) -> Encoder:
        # FFmpeg is loaded on demand: a camera of another profile needs no video library.
        from producers.video.encoder import limited_encoder, software_encoder
        from producers.video.hardware import hardware_encoder

        chosen = self._settings
        if not self._software_only and chosen.codec_number is Codec.H264:
            encoder, reason = hardware_encoder(
                chosen.hardware, height, width, rate, chosen.rate_factor, chosen.max_bytes_per_second
            )
            if encoder is not None:
                return encoder
            self._software_only = True
            _log.warning(
                "software_encoder_used", camera=self._key.camera_id, wanted=chosen.hardware, reason=reason,
                used="libx264",
            )  # fmt: skip
        rate_factor: float = chosen.rate_factor
        if chosen.codec_number is Codec.H264:
            rate_factor = max(0, rate_factor - _FINER)
        if self._limit is not None:
            # Without a rate of its own, a camera has that of its last group.
            rate = rate if self._is_rate_known else self._limit.measured_rate or rate
            allowance = self._limit.begin(rate, chosen.group_frames, chosen.group_s)
            return limited_encoder(height, width, encoder_rate(Codec.H264, rate), rate_factor, *allowance)
        rate = encoder_rate(chosen.codec_number, rate)
        return software_encoder(chosen.codec_number, height, width, rate, rate_factor, chosen.max_bytes_per_second)


def unmasked(picture: Picture | Planes) -> Planes:
    """Return the planes of a whole picture."""
    return _filled(_no_mask(*picture.shape[:2]), picture)


@lru_cache(maxsize=4)
def _no_mask(height: int, width: int) -> Fill:
    return Fill(np.ones((height, width), dtype=np.bool_))


def encoder_rate(codec: Codec, rate: float) -> float:
    """Return the frames a second for a codec's software encoder; `rate` is the camera's, 0 if it is not set."""
    rate = rate or USUAL_RATE
    return min(max(rate, _AV1_RATES[0]), _AV1_RATES[1]) if codec is Codec.AV1 else max(rate, _LOWEST_RATE)


def _filled(fill: Fill, picture: Picture | Planes) -> Planes:
    return fill.planes(picture) if isinstance(picture, Planes) else fill.picture(picture)


def _change(last: _SampledPicture | None, samples: _SampledPicture, *, is_same_mask: bool) -> float | None:
    """Return the mean change since the `last` picture's samples, in levels; None if it cannot be compared.

    Under different masks, samples that both pictures kept are compared: a filled one changes with its mask.
    """
    if last is None or (last.setup.shape, last.setup.colour) != (samples.setup.shape, samples.setup.colour):
        return None
    difference = samples.luma - last.luma
    if not is_same_mask:
        difference = difference[samples.kept & last.kept]
        if difference.size < _LEAST_SHARED:
            return None
    np.abs(difference, out=difference)
    return int(difference.sum(dtype=np.int64)) / difference.size
