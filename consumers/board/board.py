"""What is known of each camera now, for the pages and the metrics: bounded, and saved so that a restart finds it.

Neither a camera's clock nor this machine's is trusted with the question who is silent: ages are on the monotonic clock,
in milliseconds (`now_ms`), and of two frames of a boot the one with the higher sequence number is the newer one.

Nothing here walks all cameras but a page that asks for all of them: who changed is noted when it does, and who falls
silent is found by a queue of the times at which they would.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from consumers.board.camera import Camera, Described, follows
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State
from consumers.evidence.probe_plan import Seen
from consumers.settings import RecorderSettings
from consumers.store import Written
from schemas.limits import CAMERAS_AT_HAND
from schemas.pointillist_pb2 import ENDED, OFFLINE, PAUSED

MAX_CAMERAS: Final = CAMERAS_AT_HAND
_GONE_REMEMBERED: Final = 1_000
"""Cameras of which a page is told that they are no longer shown; one that is farther behind begins anew."""
_SENDING: Final = frozenset(State) - {State.OFFLINE, State.SILENT, State.REVOKED}
"""States in which a camera may be asked for probes while its frames come."""
_STOPPED: Final = (OFFLINE, PAUSED, ENDED)
"""Reported states that a later frame proves to be outdated."""


def monotonic_ms() -> int:
    """The clock that ages are told by."""
    return time.monotonic_ns() // 10**6


class Board:
    """The cameras by name, and their last pictures."""

    def __init__(self, settings: RecorderSettings, clock_ms: Callable[[], int] = monotonic_ms) -> None:
        self._clock_ms = clock_ms
        self._bounds = settings.bounds
        self._silent_after_s = settings.silent_after_s
        self._rule = settings.evidence
        self._cameras: dict[str, Camera] = {}
        self._heard: OrderedDict[str, Camera] = OrderedDict()
        """Those that have sent a frame, the one heard last at the end."""
        self._changed: OrderedDict[str, Camera] = OrderedDict()
        """All, the one that changed last at the end."""
        self._gone: OrderedDict[str, int] = OrderedDict()
        self.version = time.time_ns() // 10**6
        """Raised with every transaction that changes something. A recorder that starts again begins above the last."""
        self._forgotten_at = self.version
        self._silent_at: list[tuple[float, str]] = []
        """When each sending camera would fall silent, or earlier: a heap."""
        self._stirred: set[str] = set()
        self._unsaved: OrderedDict[str, int] = OrderedDict()
        """Cameras that changed since they were saved, with the first time of recording of what is not saved."""
        self._unjudged: set[str] = set()
        """Cameras of which something changed since they were judged."""
        self._faulty: dict[str, State] = {}
        """Cameras in a state that somebody has to look at."""
        self._unseen: OrderedDict[str, bytes] = OrderedDict()
        """The newest preview of each camera that nobody has looked at."""
        self._taken_ms = 0
        """When what was taken last was recorded."""
        self._previews: OrderedDict[str, tuple[int, int, bytes]] = OrderedDict()
        self._preview_bytes = 0

    def restore(self, found: Iterable[Camera]) -> None:
        """Begin with what the database knows; its ages are the only ones that go by the time of day."""
        now_ms, clock_ms = time.time_ns() // 10**6, self._clock_ms()
        for camera in sorted(found, key=lambda each: each.last.recorded_ms if each.last else 0):
            self._cameras[camera.name] = camera
            if camera.last is not None:
                camera.heard_ms = clock_ms - max(0, now_ms - camera.last.recorded_ms)
                self._heard[camera.name] = camera
                self._sends(camera, clock_ms)
            if camera.status is not None:
                camera.said_ms = clock_ms - max(0, now_ms - camera.status.state_ms)
            if camera.judged is not None:
                camera.health.restore(camera.judged.state, clock_ms)
            self._touch(camera)
        self.version += 1

    def take(self, written: Written) -> None:
        """Show what one transaction has brought."""
        now_ms = self._clock_ms()
        self.version += 1
        unsaved = self._unsaved
        touched: dict[str, Camera] = {}
        for row in written.rows:
            name = row.camera
            camera = touched.get(name)
            if camera is None:
                camera = touched[name] = self._camera(name)
                if name not in unsaved:
                    unsaved[name] = row.recorded_ms
            camera.take(row, now_ms)
        if written.rows:
            self._taken_ms = written.rows[-1].recorded_ms
        for name, camera in touched.items():
            self._heard[name] = camera
            self._heard.move_to_end(name)
            if not camera.sending or (camera.status is not None and camera.status.state in _STOPPED):
                self._sends(camera, now_ms)
            self._touch(camera)
        for (name, _, _), verdict in written.verdicts.items():
            if verdict.HasField("changed") and name in touched:
                touched[name].health.compare(verdict.changed, now_ms)
        shown = [key for key, verdict in written.verdicts.items() if verdict.preview]
        for key in shown and {row[:3] for row in written.rows}.intersection(shown):
            self._keep_preview(*key, written.verdicts[key].preview)
        for status in written.cameras:
            camera = self._camera(status.camera)
            if camera.status is None or camera.status.state_ms != status.state_ms:
                camera.said_ms = now_ms
            camera.say(status)
            if camera.last is not None:
                self._sends(camera, now_ms)
            self._touch(camera)
            self._stirred.add(status.camera)
        for name, refusal in written.refusals:
            camera = self._camera(name)
            camera.refuse(refusal, now_ms)
            self._touch(camera)
        self.take_evidence(written)
        self._make_room()

    def take_evidence(self, written: Written) -> None:
        """Show how far the evidence of each camera is, by its newest boot."""
        for (name, boot), chain in written.chains.items():
            camera = self._cameras.get(name)
            if camera is not None and camera.last is not None and boot in (camera.last.boot, camera.boot):
                camera.boot, camera.level, camera.is_new = boot, chain.level(self._rule), chain.is_new(self._rule)
                self._unsaved.setdefault(name, self._taken_ms)
                self._stirred.add(name)
                self._touch(camera)
        for alert in written.alerts:
            if alert.camera_id in self._cameras:
                self._cameras[alert.camera_id].alerts += 1

    def _touch(self, camera: Camera) -> None:
        camera.version = self.version
        self._unjudged.add(camera.name)
        self._changed[camera.name] = camera
        self._changed.move_to_end(camera.name)

    def _sends(self, camera: Camera, now_ms: int) -> None:
        """Its frames come, or may: look again when they would have stopped."""
        self._stirred.add(camera.name)
        if not camera.sending:
            camera.sending = True
            heapq.heappush(self._silent_at, (self._silence_ms(camera), camera.name))

    def _silence_ms(self, camera: Camera) -> float:
        return camera.heard_ms + 1000 * camera.patience_s(self._silent_after_s)

    def expire(self, now_ms: int) -> None:
        """Note who has fallen silent by now."""
        fell = False
        while self._silent_at and self._silent_at[0][0] < now_ms:
            _, name = heapq.heappop(self._silent_at)
            camera = self._cameras.get(name)
            if camera is None or not camera.sending:
                continue
            until_ms = self._silence_ms(camera)
            if until_ms >= now_ms:
                heapq.heappush(self._silent_at, (until_ms, name))
                continue
            if not fell:
                fell = True
                self.version += 1
            camera.sending = False
            self._stirred.add(name)
            self._touch(camera)

    def revoke(self, accepted_from: Mapping[str, int]) -> None:
        """Note whose announced key generation is below the lowest accepted one, or is not any more."""
        for name, lowest in accepted_from.items():
            camera = self._cameras.get(name)
            if camera is None or camera.meta is None:
                continue
            is_revoked = camera.meta.key_generation < lowest
            if camera.is_revoked != is_revoked:
                camera.is_revoked = is_revoked
                self.version += 1
                self._touch(camera)

    def judge(self, now_ms: int, unix_ms: int) -> list[tuple[SavedState, int]]:
        """Judge the cameras that changed; the states to be saved, each with the Unix time of its last frame."""
        self.expire(now_ms)
        names, self._unjudged = self._unjudged, set()
        found = []
        for name in names:
            camera = self._cameras.get(name)
            if camera is None:
                continue
            judged = camera.judge(now_ms, self._silent_after_s)
            if judged.state is State.REFUSED:
                # Refusals stop without a word: look again until they have.
                self._unjudged.add(name)
            if judged != camera.judged:
                if camera.judged is None or camera.judged.state is not judged.state:
                    camera.since_ms = unix_ms
                camera.judged = judged
                self._faulty.pop(name, None)
                if judged.state.is_fault:
                    self._faulty[name] = judged.state
                saved = SavedState(name, judged, camera.since_ms, camera.patience_s(self._silent_after_s))
                found.append((saved, camera.recorded_ms))
        return found

    def faulty(self, count: int) -> list[tuple[str, State]]:
        """The cameras in a state that somebody has to look at, at most `count`, the worst first."""
        return heapq.nsmallest(count, self._faulty.items(), key=lambda each: (each[1].severity, each[0]))

    def unseen(self, count: int) -> list[tuple[Camera, bytes]]:
        """Take the newest previews of at most `count` cameras, those that have waited longest first."""
        found: list[tuple[Camera, bytes]] = []
        while self._unseen and len(found) < count:
            name, jpeg = self._unseen.popitem(last=False)
            if name in self._cameras:
                found.append((self._cameras[name], jpeg))
        return found

    def looked_at(self, cameras: Iterable[Camera]) -> None:
        """Judge these cameras again: their pictures were looked at."""
        self._unjudged.update(camera.name for camera in cameras)

    def cameras(self) -> list[Camera]:
        """All cameras, by name."""
        return [self._cameras[name] for name in sorted(self._cameras)]

    def heard_last(self, count: int) -> list[Camera]:
        """The cameras that were heard last, at most `count`."""
        return list(islice(reversed(self._heard.values()), count))

    def describe(self, now_ms: int) -> list[Described]:
        """What `/cameras` answers."""
        return [camera.describe(now_ms, self._silent_after_s) for camera in self.cameras()]

    def describe_since(self, version: int, now_ms: int) -> dict[str, object]:
        """What `/changes` answers: the cameras that changed after `version`, and those that are no longer shown.

        `all` says that it is everything there is, since so long ago is not remembered.
        """
        self.expire(now_ms)
        everything = not self._forgotten_at <= version <= self.version
        since = -1 if everything else version
        cameras = [camera.describe(now_ms, self._silent_after_s) for camera in self._since(since)]
        gone = [] if everything else [name for name, at in self._gone.items() if at > version]
        return {"version": self.version, "all": everything, "cameras": cameras, "gone": gone}

    def _since(self, version: int) -> Iterator[Camera]:
        for camera in reversed(self._changed.values()):
            if camera.version <= version:
                return
            yield camera

    def stirred(self, now_ms: int) -> list[Seen | str]:
        """What changed for the plan of probes since the last call: cameras that send frames, and names that do not."""
        self.expire(now_ms)
        names, self._stirred = self._stirred, set()
        return [self._seen(name, now_ms) for name in sorted(names)]

    def _seen(self, name: str, now_ms: int) -> Seen | str:
        camera = self._cameras.get(name)
        if camera is None or camera.meta is None or not camera.sending:
            return name
        if camera.judge(now_ms, self._silent_after_s).state not in _SENDING:
            return name
        return Seen(name, camera.level, camera.is_new, camera.meta)

    def unsaved(self, count: int) -> tuple[list[Camera], int]:
        """At most `count` cameras to be saved now, and from when on what is recorded may not be saved after that."""
        names = list(islice(self._unsaved, count))
        cameras = [self._cameras[name] for name in names if name in self._cameras]
        for name in names:
            del self._unsaved[name]
        return cameras, next(iter(self._unsaved.values()), self._taken_ms)

    def preview(self, name: str) -> bytes | None:
        """The camera's last picture as JPEG, while it is kept."""
        found = self._previews.get(name)
        return found[2] if found else None

    def _camera(self, name: str) -> Camera:
        camera = self._cameras.get(name)
        if camera is None:
            camera = self._cameras[name] = Camera(name)
            self._gone.pop(name, None)
        return camera

    def _make_room(self) -> None:
        # Whoever invents cameras displaces only other cameras without a frame.
        strangers = len(self._cameras) - len(self._heard)
        if strangers > 2 * self._bounds.strangers:
            names = [name for name, camera in self._cameras.items() if camera.last is None]
            self._forget(names[: len(names) - self._bounds.strangers])
        if len(self._heard) > MAX_CAMERAS + self._bounds.strangers:
            self._forget(list(islice(self._heard, len(self._heard) - MAX_CAMERAS)))

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            for known in (self._cameras, self._heard, self._changed, self._unsaved, self._unseen, self._faulty):
                known.pop(name, None)
            self._gone[name] = self.version
            self._stirred.add(name)
        while len(self._gone) > _GONE_REMEMBERED:
            _, self._forgotten_at = self._gone.popitem(last=False)

    def _keep_preview(self, name: str, boot: int, seq: int, picture: bytes) -> None:
        held, newest, before = self._previews.get(name, (boot, -1, b""))
        if not follows(boot, seq, held, newest):
            return
        if name in self._unseen or len(self._unseen) < self._bounds.preview_cameras:
            self._unseen[name] = picture
        self._previews[name] = (boot, seq, picture)
        self._previews.move_to_end(name)
        self._preview_bytes += len(picture) - len(before)
        while self._previews and (
            self._preview_bytes > self._bounds.preview_bytes or len(self._previews) > self._bounds.preview_cameras
        ):
            _, (_, _, dropped) = self._previews.popitem(last=False)
            self._preview_bytes -= len(dropped)
