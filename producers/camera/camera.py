"""A camera: source, encoder, spool and publisher."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from producers.camera.camera_settings import CameraSettings
from producers.camera.fair_gate import FairGate
from producers.camera.frame_sizes import FrameSizes
from producers.camera.sealing import FrameSealer
from producers.gate.motion import MotionGate, MotionSettings
from producers.metrics import Instruments
from producers.publisher import Broker, LinkSettings, Publisher
from producers.publisher.commands import CameraControl
from producers.publisher.link import Connection, Link
from producers.sources.opening import open_source
from producers.sources.reader import Reader, TimedFrame, read_from
from producers.sources.settings import REAL_KINDS
from producers.sources.source import Source
from producers.spool import Spool
from producers.video.group import VIDEO_FROM, GroupEncoder
from schemas.errors import SecretError, SourceError, SourceHungError, StateError, WireError
from schemas.identity import Identity
from schemas.keys.keys import CameraKey
from schemas.limits import BLOCK
from schemas.messages.frame import Encoding
from schemas.messages.moving import pack_moving
from schemas.pixels.masks import has_pool, kept_mask, make_pool
from schemas.pixels.packing import Picture
from schemas.pixels.planes import Planes
from schemas.pointillist_pb2 import RAW, VIDEO, Meta
from schemas.runtime import trace
from schemas.runtime.daemon_thread import run_in_daemon_thread
from schemas.transport.backoff import Backoff
from schemas.waiting import wait_at_most

if TYPE_CHECKING:
    from producers.video.comparison import Comparison

_log = structlog.get_logger()

_RETRY_S: Final = (0.5, 15.0)
_LATE_S: Final = 5.0
"""Maximum lateness in seconds, after a pause of the machine, that a camera catches up; beyond it the camera continues
from now."""
_STALLED_S: Final = 0.2
"""Seconds for one picture after which the source counts as stalled. The camera then continues from now."""
_OFF_S: Final = 0.1
_HOURS_S: Final = 1.0
"""Interval between two checks of the hours, and of commands and the source while a camera waits long for its next
frame."""
_AHEAD: Final = 64
"""Maximum waiting frames of a live source, if all of its frames are sent."""
_TURNS: Final = 8
"""Frames that a camera without a rate may publish before other cameras run."""


class Camera:
    """One camera of this process. `run` captures until the source ends; `tick` is called a few times a second.

    Spooled frames that an earlier process signed with another key are shed: no server accepts them.

    Raises `StateError` when the spool is in use and `SecretError` when the key is not this camera's.
    """

    def __init__(
        self,
        settings: CameraSettings,
        key: CameraKey,
        folder: Path,
        broker: Broker,
        link: LinkSettings,
        instruments: Instruments,
        fair_gate: FairGate | None = None,
        phase_s: float = 0.0,
        wrap_source: Callable[[Source], Source] | None = None,
        wrap_link: Callable[[Link], Connection] | None = None,
    ) -> None:
        """`fair_gate` is shared by all cameras of a process; `phase_s` is the delay of the first frame.

        `wrap_source` and `wrap_link` return decorators of the camera's source and connection.
        """
        if key.camera_id != settings.camera_id:
            raise SecretError(
                f"the camera key: expected one of {settings.camera_id}, got one of {key.camera_id}. Print the "
                "right one with `pointillist key`."
            )
        self.settings = settings
        self.ended = False
        self.closed = False
        self.still = 0
        """Number of frames without motion, which were not sent."""
        self.trouble = ""
        """The reason why the source gives no picture, without its address; empty if it gives pictures."""
        self._key = key
        self._instruments = instruments
        self._fair_gate = fair_gate or FairGate()
        self._wrap_source = wrap_source
        self._new_rate = asyncio.Event()
        # A real camera sends the motion box in every frame, even without a motion gate.
        measures = settings.motion is not None or settings.source.kind in REAL_KINDS
        self._gate = MotionGate(settings.motion or MotionSettings()) if measures else None
        self._size = (0, 0, 0)
        self._sizes = FrameSizes()
        self._source: Source | None = None
        self._opening: asyncio.Future[Source] | None = None
        self._masks: threading.Thread | None = None
        self._kind = ""
        self._phase_s = phase_s
        self._last = -math.inf
        """Time of the last frame of a camera with a rate, monotonic. A source that is opened again keeps the rate."""
        self._compares = settings.measure_codec
        self._comparison: Comparison | None = None
        self.spool = Spool(folder, settings.camera_id, settings.spool)
        try:
            self._control = CameraControl(folder, key, settings.encoding, rate=settings.fps)
            self._control.on_rate = self._rate_changed
            self.publisher = Publisher(
                key, self.spool, self._control, self._meta, broker, settings.window, link, instruments, wrap_link
            )  # fmt: skip
            self._groups = GroupEncoder(key, settings.video, self._control.rate)
            self._sealing = FrameSealer(key, self.spool, self.publisher.publish, self._groups)
            self.publisher.on_shed = self._sealing.shed
            refused = self.spool.shed_signed_otherwise(key)
        except BaseException:
            # The next try needs its lock.
            with contextlib.suppress(StateError):
                self.spool.close()
            raise
        if settings.motion is not None:
            self.publisher.presence.longest_gap_s = settings.motion.heartbeat_s
        if refused:
            _log.warning("key_changed", camera=key.camera_id, generation=key.generation, frames_shed=refused)

    async def open_source(self) -> None:
        """Open the source after the position of this spool's last frame; `SourceError` if that fails.

        If `open_source` is cancelled, or raises `SourceHungError` because a stream takes too long, the opening
        continues, and the next call waits for it. A source that opens late, during a pause, is closed. A computed
        source opens on the event loop: thousands of threads take longer than the work itself.
        """
        at_once = self.settings.source.computed and has_pool(self._control.encoding.dropped_per_block)
        if at_once and self._opening is None:
            await self._fair_gate.enter()
            self._source = self._positioned()
            self._kind = self._source.kind
            return
        if self._opening is None:
            self._opening = run_in_daemon_thread(self._open, f"open-{self.settings.camera_id}")
        source = self.settings.source
        within_s = source.opening_s if source.kind == "url" else None
        await asyncio.wait({self._opening}, timeout=within_s)
        if not self._opening.done():
            reason = f"did not open within {within_s:g} s"
            raise SourceHungError.of(f"the source of {self.settings.camera_id}", reason)
        opening, self._opening = self._opening, None
        self._source = opening.result()
        self._kind = self._source.kind

    def _open(self) -> Source:
        """Open the source and make the mask codebook, in a thread: both would delay the other cameras."""
        # The codebook is made while the source opens. A source that fails is reported at once, and a live source is
        # read before many of its frames have come.
        if self._masks is None:
            sizes = BLOCK, BLOCK, self._control.encoding.dropped_per_block
            name = f"masks-{self.settings.camera_id}"
            self._masks = threading.Thread(target=kept_mask, args=(self._key, 0, 0, *sizes), name=name, daemon=True)
            self._masks.start()
        source = self._positioned()
        self._masks.join()
        return source

    def _positioned(self) -> Source:
        """Open the source, and continue after this spool's last frame."""
        planar = self._control.encoding.profile == VIDEO
        source = open_source(self.settings.source, self.settings.index, planar=planar)
        if self._wrap_source is not None:
            source = self._wrap_source(source)
        try:
            if not source.live:
                source.seek(self.spool.position)
                self._warn_of_lost_position()
        except BaseException:
            source.close()
            raise
        return source

    def _warn_of_lost_position(self) -> None:
        """Log once that frames of a source that can wait are sent again, because damage has destroyed a ledger."""
        if self.spool.position_lost:
            self.spool.position_lost = False
            position = self.spool.position
            again = f"frames {position} and later of the source, if they were sent before"
            _log.warning(
                "source_position_lost", camera=self.settings.camera_id, continues_at=position, sent_again=again
            )

    async def run(self) -> None:
        """Capture until the source ends. A failing source is retried with exponential backoff; nothing else ends the
        capture."""
        backoff = Backoff(*_RETRY_S)
        while not self.ended:
            published = self.spool.current.next
            try:
                if self._source is None:
                    await self._await_permission()
                    await self.open_source()
                await self._capture()
            except Exception as error:
                if self.spool.current.next > published:
                    backoff.reset()
                self._failed(error)
                await backoff.wait()

    @property
    def picture_format(self) -> tuple[int, int, float]:
        """Width and height of the last frame, 0 before the first, and frames a second, 0 for every frame."""
        return self._size[1], self._size[0], self._control.rate

    @property
    def idle(self) -> bool:
        """Whether `tick` only keeps the connection alive and reports the ledger."""
        waits = self.spool.frames or self.ended or self.publisher.presence.degraded
        return self.publisher.link.idle and not waits

    def tick(self, now: float) -> None:
        """Keep the connection, resend, and shed frames beyond the age limit. `now` is monotonic, in seconds."""
        self.publisher.tick(now)
        self.spool.shed_old()
        if self.ended and not self.spool.current.closed:
            self.finish()

    def finish(self) -> None:
        """Close this boot: it publishes no more frames. If the spool cannot store that, `tick` tries again."""
        self.ended = True
        try:
            self.publisher.finish()
        except StateError as error:
            self._spool_failed(error)
        else:
            self.publisher.presence.clear_fault("spool")

    async def close(self, timeout_s: float) -> None:
        """Disconnect and release the spool. A part that fails to close keeps no other part open."""
        self.closed = True
        async with contextlib.AsyncExitStack() as parts:  # closed in reverse order
            parts.callback(self.spool.close)
            parts.callback(self._sealing.close)
            parts.push_async_callback(self.publisher.close, timeout_s)
            if self._source is not None:
                source, self._source = self._source, None
                parts.callback(source.close)
            if self._opening is not None:
                self._opening.add_done_callback(_close_opened)

    async def _capture(self) -> None:
        source, self._source = self._source, None
        assert source is not None
        reader = read_from(source, self._most_waiting, self.settings.source.hang_s)
        try:
            over = None
            while over is None:
                reader.keep_ahead(self._most_waiting)
                paced = self._control.rate > 0
                over = await (self._capture_paced if paced else self._capture_unpaced)(reader, source.live)
        finally:
            self._count_skipped(reader)
            reader.close()
        if over:
            self._clear_source_fault()  # an earlier failure is over too
            self.publisher.presence.end("its source has ended")
            self.finish()

    @property
    def _most_waiting(self) -> int:
        """Maximum number of waiting frames of a live source: a camera with a rate takes the newest."""
        return 1 if self._control.rate else _AHEAD

    def _rate_changed(self) -> None:
        self._groups.set_rate(self._control.rate)
        self._new_rate.set()

    async def _sleep(self, seconds: float) -> None:
        """Sleep for this many seconds, or until another rate is set."""
        self._new_rate.clear()
        await wait_at_most(self._new_rate, seconds)

    @property
    def in_hours(self) -> bool:
        """Whether the schedule includes the current time. Outside its hours, the camera's source is closed."""
        return self.settings.in_hours(time.time())

    @property
    def may_send(self) -> bool:
        """Whether the schedule includes the current time and no command pauses the camera."""
        return self._control.enabled and self.in_hours

    async def _await_permission(self) -> None:
        """Wait until the camera may send: until then its source is not opened."""
        while not self.may_send:
            await self._await_hours()
            if not self._control.enabled:
                await self._await_command()

    async def _await_hours(self) -> None:
        """Wait until the schedule includes the current time."""
        schedule, now = self.settings.schedule, time.time()
        if schedule is None or schedule.holds(now):
            return
        opens_s = schedule.opens_at(now)
        self._clear_source_fault()  # nothing is wrong with a source that is closed on purpose
        self.publisher.presence.pause("hours", "outside the hours in which it sends")
        _log.info("camera_paused", camera=self.settings.camera_id, until_ms=opens_s and round(1000 * opens_s))
        try:
            while not schedule.holds(now):
                await asyncio.sleep(_HOURS_S)
                self._close_late_source()
                now = time.time()
        finally:
            self.publisher.presence.resume("hours")

    async def _capture_paced(self, reader: Reader, live: bool) -> bool | None:
        """Capture frame k at start + k / rate, independent of the broker: the spool stores what the broker does not
        accept.

        Returns True when the source has ended, False when the camera's hours have ended, and None when a command asks
        for all frames. At another rate it continues from its last frame.
        """
        rate = self._control.rate
        last = max(self._last, time.monotonic() + self._phase_s - 1 / rate)
        self._phase_s = 0.0
        while rate > 0:
            due = last + 1 / rate
            late_s = time.monotonic() - due
            if self._control.rate == rate:
                await (self._sleep(min(-late_s, _HOURS_S)) if late_s < 0 else asyncio.sleep(0))
            if self._control.rate != rate:
                if (rate := self._control.rate) > 0:
                    last = max(last, time.monotonic() - 1 / rate)
                continue
            if not self.in_hours:
                return False
            if not self._control.enabled:
                await self._await_command(reader)
                last = time.monotonic() - 1 / rate
                continue
            if late_s < -_HOURS_S:
                if reader.check():
                    self._clear_source_fault()
                continue
            if late_s > (1 / rate if live else _LATE_S):
                due += late_s
            await self._fair_gate.enter()
            asked = time.monotonic()
            reading = await reader.next()
            if reading is None:
                return True
            await self._make_patterns()
            if live and not self.may_send:
                continue
            answered = time.monotonic()
            await self._publish(reader, reading)
            last = self._last = due if answered - asked < _STALLED_S else answered
        return None

    async def _capture_unpaced(self, reader: Reader, live: bool) -> bool | None:
        """Capture as fast as the window allows; a live source at its own rate, into the spool.

        Returns as `_capture_paced` does, and None when a command sets a rate.
        """
        turn = 0
        while not self._control.rate:
            turn += 1
            if turn % _TURNS == 0:
                await asyncio.sleep(0)
            if not live and not self.publisher.has_room:
                await self.publisher.wait_for_room()
            if not self.in_hours:
                return False
            if not self._control.enabled:
                await self._await_command(reader)
                continue
            reading = await reader.next()
            if reading is None:
                return True
            await self._make_patterns()
            if live and not self.may_send:
                continue
            await self._publish(reader, reading)
        return None

    async def _await_command(self, reader: Reader | None = None) -> None:
        """Wait while a command pauses the camera, within its hours; drop what `reader` has read ahead."""
        self._clear_source_fault()  # nothing is wrong with a source that sends nothing on purpose
        self.publisher.presence.pause("command", "paused by a command")
        if reader is not None:
            self._count_skipped(reader)  # those before the pause: those of the pause do not count
        while not self._control.enabled and self.in_hours:
            if reader is not None:
                reader.discard()
            await asyncio.sleep(_OFF_S)
            self._close_late_source()
        self.publisher.presence.resume("command")
        if reader is not None:
            reader.discard()

    def _count_skipped(self, reader: Reader) -> None:
        if skipped := reader.take_skipped():
            self.spool.current.frames_skipped += skipped
            self._instruments.skipped.inc(skipped)

    def _close_late_source(self) -> None:
        """Close a source whose late opening has ended during a pause: the pictures that it holds are of the pause."""
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            _close_opened(opening)

    async def _make_patterns(self) -> None:
        """Make the mask patterns of a drop that a command has set. They take up to a second, in a thread of their own:
        the process's other cameras do not wait."""
        while not has_pool(dropped := self._control.encoding.dropped_per_block):
            await run_in_daemon_thread(partial(make_pool, dropped), f"masks-{self.settings.camera_id}")

    async def _publish(self, reader: Reader, reading: TimedFrame) -> None:
        captured, captured_ms = reading
        taken_ns = time.time_ns()
        picture, ledger = captured.picture, self.spool.current
        shown = picture if captured.planes is None else captured.planes
        self._count_skipped(reader)
        await self._append()  # sealed by an attempt that was interrupted
        passes = self._gate is None or self._gate.passes(picture, captured_ms)
        if not passes and self.settings.motion is not None:
            self.still += 1
            self._instruments.still.inc()
            self._clear_source_fault()
            return
        self._sealing.request_key(self._control.key_wanted)
        identity = Identity(self.settings.camera_id, ledger.boot_id, ledger.next)
        traced = trace.sample(identity)
        if trace.on():
            trace.stamp("captured", identity, at_ns=captured_ms * 10**6)
            trace.stamp("taken", identity, at_ns=taken_ns)
        try:
            encoding, moving = self._encoding(shown.shape), self._moving(picture)
            payload = self._sealing.seal(
                shown, captured_ms, captured.position, encoding, captured.truth, moving, traced=traced
            )
        except (SourceError, WireError) as error:
            trace.leave("camera", identity)  # its number is used again
            if isinstance(error, SourceError):
                raise
            advice = f"{error}; set a size or a region"
            raise SourceError.of(f"the source of {self.settings.camera_id}", advice) from None
        if trace.on():
            trace.stamp("sealed", identity)
        await self._append()
        if self._compares:
            self._compare(shown, ledger.next - 1, payload)
        changed = self._sizes.changed(captured.stream_frame_bytes, len(payload), time.monotonic())
        if changed or shown.shape != self._size:
            self._size = shown.shape
            self.publisher.presence.describe()
        self._clear_source_fault()
        if self.publisher.presence.degraded:
            self.publisher.presence.clear_fault("spool")

    def _moving(self, picture: Picture) -> int:
        box = None if self._gate is None else self._gate.box
        return pack_moving(box, *picture.shape[:2])

    def _compare(self, shown: Picture | Planes, seq: int, payload: bytes) -> None:
        if self._comparison is None:
            # FFmpeg is loaded on demand.
            from producers.video.comparison import Comparison

            self._comparison = Comparison(self.settings.video, self._instruments.compared)
        try:
            self._comparison.add(shown, seq, payload, self._control.rate)
        except SourceError as error:
            self._compares = False
            _log.warning("comparison_ended", camera=self.settings.camera_id, error=str(error))

    def _encoding(self, shape: tuple[int, ...]) -> Encoding:
        """Return the encoding of a picture. For a small one a codec saves little, and decoding takes a process."""
        encoding = self._control.encoding
        if encoding.profile == VIDEO and min(shape[:2]) < VIDEO_FROM:
            return replace(encoding, profile=RAW)
        return encoding

    def _clear_source_fault(self) -> None:
        if self.trouble:
            self.trouble = ""
            self.publisher.presence.clear_fault("source")

    async def _append(self) -> None:
        while self._sealing.waits:
            try:
                self._sealing.append()
            except StateError as error:
                self._spool_failed(error)
                await asyncio.sleep(_RETRY_S[0])

    def _spool_failed(self, error: StateError) -> None:
        if self.publisher.presence.report_fault("spool", "the spool cannot be written"):
            _log.error("spool_failed", camera=self.settings.camera_id, error=str(error))

    def _failed(self, error: Exception) -> None:
        """Report a failure of the source, or of the code around it. Other cameras are not affected."""
        cause = "hung" if isinstance(error, SourceHungError) else "failed"
        self._instruments.source_restarts.labels(cause).inc()
        if isinstance(error, SourceError):
            _log.error("source_failed", camera=self.settings.camera_id, reason=cause, error=str(error))
        else:
            _log.exception("camera_failed", camera=self.settings.camera_id)
        self.trouble = error.reason if isinstance(error, SourceError) else ""
        if not self.trouble:
            self.trouble = "the source gives no frames" if cause == "hung" else "the source cannot be read"
        self.publisher.presence.report_fault("source", self.trouble)

    def _meta(self) -> Meta:
        height, width, channels = self._size
        encoding = self._encoding(self._size) if height else self._control.encoding
        return Meta(
            install_id=self.spool.install_id,
            boot_id=self.spool.current.boot_id,
            width=width,
            height=height,
            channels=channels,
            frames_per_second=self._control.rate,
            dropped_per_block=encoding.dropped_per_block,
            probe_share=encoding.probe_share,
            profile=encoding.profile,  # type: ignore[arg-type]  # checked in Encoding
            source=self._kind,
            software=_software(),
            command_state=self._control.state,
            stream_frame_bytes=self._sizes.own,
            sent_frame_bytes=self._sizes.sent,
        )


@cache
def _software() -> str:
    return f"pointillist {version('pointillist')}"


def _close_opened(opening: asyncio.Future[Source]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
