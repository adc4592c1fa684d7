"""What is known of each camera now, for the pages and the metrics: bounded, and rebuilt from the database at start.

Neither a camera's clock nor this machine's is trusted with the question who is silent: ages are on the monotonic clock,
in milliseconds (`now_ms`), and of two frames of a boot the one with the higher sequence number is the newer one.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, func, select

from consumers.database.tables import boots, cameras, frames
from consumers.evidence.probe_plan import Seen
from consumers.reading.rows import CameraRow, FrameRow
from consumers.settings import RecorderSettings
from consumers.store import Written
from schemas.pointillist_pb2 import CHECKED, DEGRADED, OFFLINE, ONLINE, UNKNOWN, Meta

RECENT_PROBES: Final = 50
MAX_CAMERAS: Final = 10_000
_STATES: Final[dict[int, str]] = {OFFLINE: "offline", DEGRADED: "degraded", ONLINE: "online"}


@dataclass(slots=True)
class Camera:
    """One camera as the pages show it."""

    name: str
    frames: int = 0
    """Recorded, purged ones included."""
    last: FrameRow | None = None
    """The newest frame of the boot that was heard last."""
    heard_ms: int = 0
    """When a frame was recorded last."""
    said_ms: int = 0
    """When it was heard last how the camera is."""
    entropy_bits: float | None = None
    """Of the last checked probe."""
    probes: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_PROBES))
    """Of the recent checked probes, whether they were flagged."""
    status: CameraRow | None = None
    boot: int = 0
    """The boot that the evidence is of."""
    level: float = 0.0
    """How far its evidence is on its way to an alert, 1 during an episode."""
    is_new: bool = True
    """Whether it has no baseline of evidence yet."""
    alerts: int = 0
    """Raised since this process began."""

    def take(self, row: FrameRow, now_ms: int = 0) -> None:
        """A new frame was recorded."""
        self.frames += 1
        self.heard_ms = now_ms
        if self.last is None or _follows(row, self.last.boot, self.last.seq):
            self.last = row
        if row.strip == CHECKED:
            self.entropy_bits = row.entropy_bits
            self.probes.append(row.flagged)

    def probe_share(self) -> float | None:
        """Share of its frames that it says it sends whole; None when it has not said."""
        meta = _announced(self.status)
        return meta.probe_share if meta is not None else None

    def flagged_share(self) -> float | None:
        """Of the recent probes; None when there were none."""
        return sum(self.probes) / len(self.probes) if self.probes else None

    def age_s(self, now_ms: int) -> float | None:
        """Since the last frame was recorded; None before the first."""
        return (now_ms - self.heard_ms) / 1000 if self.last else None

    def state(self, now_ms: int, silent_after_s: float) -> str:
        """`offline` or `degraded` as the camera says, `online` while frames come, else `silent`.

        Frames that are recorded so long after it was called offline that they are not what was still on its way show
        that it is not: a last will is known to whoever hears the connection being made, and can be replayed.
        """
        said = self.status.state if self.status else UNKNOWN
        age_s = self.age_s(now_ms)
        sends = age_s is not None and age_s <= silent_after_s
        if said == OFFLINE and sends and self.heard_ms - self.said_ms > 1000 * silent_after_s:
            said = ONLINE
        if said in (OFFLINE, DEGRADED):
            return _STATES[said]
        return "online" if sends else "silent"

    def describe(self, now_ms: int, silent_after_s: float) -> dict[str, object]:
        """The camera as `/cameras` lists it."""
        last, size = self.last, _announced_size(self.status)
        if last is not None:
            size = {"width": last.width, "height": last.height, "channels": last.channels}
        return {
            "camera": self.name,
            "status": self.state(now_ms, silent_after_s),
            "detail": self.status.detail if self.status else "",
            "age_s": self.age_s(now_ms),
            "verdict": last and {"class": last.class_name, "confidence": last.confidence, "model": last.model_id},
            "entropy_bits": self.entropy_bits,
            "flagged_share": self.flagged_share(),
            "evidence": self.level,
            "probe_share": self.probe_share(),
            "size": size,
            "frames_recorded": self.frames,
        }


def monotonic_ms() -> int:
    """The clock that ages are told by."""
    return time.monotonic_ns() // 10**6


def _follows(row: FrameRow, boot: int, seq: int) -> bool:
    """Whether a frame is newer than that one. Cameras send the frames of earlier boots first."""
    return row.boot != boot or row.seq >= seq


def _announced(status: CameraRow | None) -> Meta | None:
    try:
        return Meta.FromString(status.meta) if status and status.meta else None
    except DecodeError:
        return None


def _announced_size(status: CameraRow | None) -> dict[str, int] | None:
    meta = _announced(status)
    return {"width": meta.width, "height": meta.height, "channels": meta.channels} if meta and meta.width else None


class Board:
    """The cameras by name, and their last pictures."""

    def __init__(self, settings: RecorderSettings, clock_ms: Callable[[], int] = monotonic_ms) -> None:
        self._clock_ms = clock_ms
        self._bounds = settings.bounds
        self._silent_after_s = settings.silent_after_s
        self._cameras: dict[str, Camera] = {}
        self._previews: OrderedDict[str, tuple[int, int, bytes]] = OrderedDict()
        self._preview_bytes = 0
        self._strangers = 0
        self._rule = settings.evidence

    def restore(self, found: Iterable[Camera]) -> None:
        """Begin with what the database knows; its ages are the only ones that go by the time of day."""
        self._cameras = {camera.name: camera for camera in found}
        now_ms = time.time_ns() // 10**6
        for camera in self._cameras.values():
            if camera.last is not None:
                camera.heard_ms = self._clock_ms() - max(0, now_ms - camera.last.recorded_ms)
            if camera.status is not None:
                camera.said_ms = self._clock_ms() - max(0, now_ms - camera.status.state_ms)
        self._strangers = sum(camera.last is None for camera in self._cameras.values())

    def take(self, written: Written) -> None:
        """Show what one transaction has brought."""
        now_ms = self._clock_ms()
        for row in written.rows:
            camera = self._camera(row.camera)
            if camera.last is None:
                self._strangers -= 1
            camera.take(row, now_ms)
            preview = written.verdicts[row.camera, row.boot, row.seq].preview
            if preview:
                self._keep_preview(row, preview)
        for status in written.cameras:
            camera = self._camera(status.camera)
            if camera.status is None or camera.status.state_ms != status.state_ms:
                camera.said_ms = now_ms
            camera.status = status
        self.take_evidence(written)
        self._make_room()

    def take_evidence(self, written: Written) -> None:
        """Show how far the evidence of each camera is, by its newest boot."""
        for (name, boot), chain in written.chains.items():
            camera = self._cameras.get(name)
            if camera is not None and camera.last is not None and boot in (camera.last.boot, camera.boot):
                camera.boot, camera.level, camera.is_new = boot, chain.level(self._rule), chain.is_new(self._rule)
        for alert in written.alerts:
            if alert.camera_id in self._cameras:
                self._cameras[alert.camera_id].alerts += 1

    def cameras(self) -> list[Camera]:
        """All cameras, by name."""
        return [self._cameras[name] for name in sorted(self._cameras)]

    def describe(self, now_ms: int) -> list[dict[str, object]]:
        """What `/cameras` answers."""
        return [camera.describe(now_ms, self._silent_after_s) for camera in self.cameras()]

    def sending(self, now_ms: int) -> list[Seen]:
        """The cameras that send frames and have said what they do, as the plan of probes asks."""
        return [
            Seen(camera.name, camera.level, camera.is_new, camera.status.meta)
            for camera in self._cameras.values()
            if camera.status is not None
            and camera.status.meta
            and camera.state(now_ms, self._silent_after_s) in ("online", "degraded")
        ]

    def preview(self, name: str) -> bytes | None:
        """The camera's last picture as JPEG, while it is kept."""
        found = self._previews.get(name)
        return found[2] if found else None

    def _camera(self, name: str) -> Camera:
        camera = self._cameras.get(name)
        if camera is None:
            camera = self._cameras[name] = Camera(name)
            self._strangers += 1
        return camera

    def _make_room(self) -> None:
        # Whoever invents cameras displaces only other cameras without a frame.
        if self._strangers > 2 * self._bounds.strangers:
            strangers = [name for name, camera in self._cameras.items() if camera.last is None]
            for name in strangers[: len(strangers) - self._bounds.strangers]:
                del self._cameras[name]
            self._strangers = min(len(strangers), self._bounds.strangers)
        if len(self._cameras) > MAX_CAMERAS + 2 * self._bounds.strangers:
            seen = sorted((camera.heard_ms, name) for name, camera in self._cameras.items() if camera.last)
            for _, name in seen[: len(seen) - MAX_CAMERAS]:
                del self._cameras[name]

    def _keep_preview(self, row: FrameRow, picture: bytes) -> None:
        boot, seq, before = self._previews.get(row.camera, (row.boot, -1, b""))
        if not _follows(row, boot, seq):
            return
        self._previews[row.camera] = (row.boot, row.seq, picture)
        self._previews.move_to_end(row.camera)
        self._preview_bytes += len(picture) - len(before)
        while self._previews and (
            self._preview_bytes > self._bounds.preview_bytes or len(self._previews) > self._bounds.preview_cameras
        ):
            _, (_, _, dropped) = self._previews.popitem(last=False)
            self._preview_bytes -= len(dropped)


def load_cameras(connection: Connection) -> list[Camera]:
    """The cameras that the database knows, those heard last, with their counts, last frames and recent probes."""
    found: dict[str, Camera] = {}
    totals: Counter[str] = Counter()
    latest: dict[str, int] = {}
    by_age = select(boots.c.camera, boots.c.boot, boots.c.frames).order_by(boots.c.last_ms)
    for name, boot, count in connection.execute(by_age):
        totals[name] += count
        # A key keeps its place in a dictionary when its value changes: out with it, so that those heard last are last.
        latest.pop(name, None)
        latest[name] = boot
    for name in list(latest)[-MAX_CAMERAS:]:
        camera = found[name] = Camera(name)
        mine = (frames.c.camera == name, frames.c.boot == latest[name])
        newest = connection.scalar(select(func.max(frames.c.seq)).where(*mine))
        if newest is not None:
            recent = select(frames).where(*mine, frames.c.seq == newest)
            probes = select(frames).where(*mine, frames.c.seq > newest - 1000, frames.c.strip == CHECKED)
            ordered = probes.order_by(frames.c.seq.desc()).limit(RECENT_PROBES)
            for row in [*reversed(connection.execute(ordered).all()), *connection.execute(recent)]:
                frame = FrameRow(*row)
                if camera.last is None or frame.seq != camera.last.seq:
                    camera.take(frame)
        camera.frames = totals[name]
    for row in connection.execute(select(cameras)):
        found.setdefault(row.camera, Camera(row.camera)).status = CameraRow(*row)
    return list(found.values())
