"""The latest state of each camera in memory, for the recorder's metrics and its plan of probes; bounded.

Ages are on the monotonic clock, in milliseconds (`now_ms`): neither a camera's clock nor the wall clock of this machine
decides which camera is silent. Of two frames of a boot, the one with the higher sequence number is the newer one.

Only `all`, `retain`, `restore` and the eviction of a full cache walk all cameras. Otherwise a change is noted when it
happens, and a heap of deadlines finds silent cameras.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice, takewhile
from typing import Final

from consumers.cameras.camera import Camera, follows
from consumers.cameras.saved import SavedState
from consumers.cameras.state import State
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.evidence.probe_shares import ProbeCandidate
from consumers.settings import RecorderSettings
from schemas.clock import monotonic_ms, unix_ms
from schemas.limits import MAX_CAMERAS
from schemas.pointillist_pb2 import ENDED, OFFLINE, PAUSED

_SENDING: Final = frozenset(State) - {State.OFFLINE, State.SILENT, State.REVOKED}
"""States in which a camera may be asked for probes while its frames come."""
_STOPPED: Final = (OFFLINE, PAUSED, ENDED)
"""Reported states that a later frame proves to be outdated."""


class CameraCache:
    """The cameras by name."""

    def __init__(self, settings: RecorderSettings, clock_ms: Callable[[], int] = monotonic_ms) -> None:
        self._clock_ms = clock_ms
        self._bounds = settings.bounds
        self._silent_after_s = settings.silent_after_s
        self._forget_after_s = settings.forget_after_s
        self._rule = settings.evidence
        self._cameras: dict[str, Camera] = {}
        self._by_last_frame: OrderedDict[str, Camera] = OrderedDict()
        """Cameras that have sent a frame, the most recent at the end."""
        self._silent_at: list[tuple[float, str]] = []
        """A heap of the times at which sending cameras fall silent, or earlier ones. Those that are not the camera's
        `silent_at_ms` are outdated."""
        self._probe_changes: set[str] = set()
        """Cameras that changed since the last call of `pop_probe_changes`."""
        self._unsaved: OrderedDict[str, int] = OrderedDict()
        """Cameras that changed since they were saved, with the time of recording of their first unsaved frame."""
        self._unjudged: set[str] = set()
        """Cameras that changed since they were judged."""
        self._faulty: dict[str, State] = {}
        """Cameras in a state that needs attention."""
        self._removed_ms: Mapping[str, int] = {}
        """Cameras that people have removed, with the time of the removal."""
        self._suspicion: dict[str, float] = {}
        """Cameras with evidence or flagged probes: the larger of the evidence and the flagged share."""
        self._shown: list[str] = []
        """The cameras that `for_metrics` returned last."""
        self._previews: OrderedDict[str, bytes] = OrderedDict()
        """The newest unchecked preview of each camera."""
        self._preview_bytes = 0
        self._taken_ms = 0
        """Time of recording of the last frame."""

    def restore(self, found: Iterable[Camera]) -> None:
        """Take cameras from the database as they are there; only their ages are measured by the wall clock."""
        now_ms, clock_ms = unix_ms(), self._clock_ms()
        for camera in found:
            self._cameras[camera.name] = camera
            if camera.last is not None:
                camera.heard_ms = clock_ms - max(0, now_ms - camera.last.recorded_ms)
                self._by_last_frame[camera.name] = camera
                self._sends(camera)
            if camera.status is not None:
                camera.status_seen_ms = clock_ms - max(0, now_ms - camera.status.state_ms)
            if camera.judged is not None:
                camera.health.restore(camera.judged.state, clock_ms)
            camera.known_to_ms = now_ms
            self._unjudged.add(camera.name)
        self._by_last_frame = OrderedDict(sorted(self._by_last_frame.items(), key=lambda each: each[1].heard_ms))

    def retain(self, is_kept: Callable[[str], bool]) -> None:
        """Forget all other cameras: a recorder of a group has those of its partitions."""
        self._forget([name for name in self._cameras if not is_kept(name)])

    def apply_transaction(self, written: TransactionEffect) -> None:
        """Update the cameras with one transaction."""
        now_ms = self._clock_ms()
        unsaved = self._unsaved
        touched: dict[str, Camera] = {}
        for row in written.rows:
            name = row.camera
            camera = touched.get(name)
            if camera is None:
                camera = touched[name] = self._camera(name)
                if name not in unsaved:
                    unsaved[name] = row.recorded_ms
            camera.record_frame(row, now_ms)
        if written.rows:
            self._taken_ms = written.rows[-1].recorded_ms
        for name, camera in touched.items():
            self._by_last_frame[name] = camera
            self._by_last_frame.move_to_end(name)
            if not camera.sending or (camera.status is not None and camera.status.state in _STOPPED):
                self._sends(camera)
            self._unjudged.add(camera.name)
        if written.duplicates:
            for name in {key[0] for key in written.verdicts}:
                if name in self._cameras:
                    self._cameras[name].known_to_ms = written.recorded_ms
        for (name, _, _), verdict in written.verdicts.items():
            if verdict.HasField("changed") and name in touched:
                touched[name].health.compare(verdict.changed, now_ms)
        shown = [key for key, verdict in written.verdicts.items() if verdict.preview]
        for key in shown and {row[:3] for row in written.rows}.intersection(shown):
            self._keep_preview(*key, written.verdicts[key].preview)
        for status in written.cameras:
            camera = self._camera(status.camera)
            if camera.status is None or camera.status.state_ms != status.state_ms:
                camera.status_seen_ms = now_ms
            camera.record_status(status)
            if camera.last is not None:
                self._sends(camera)
                # The patience may be shorter now.
                self._set_deadline(camera, min(camera.silent_at_ms, self._silence_ms(camera)))
            self._unjudged.add(camera.name)
            self._probe_changes.add(status.camera)
        for name, refusal in written.refusals:
            camera = self._camera(name)
            camera.refuse(refusal, now_ms)
            self._unjudged.add(camera.name)
        self.apply_evidence(written)
        self._make_room()

    def apply_evidence(self, written: TransactionEffect) -> None:
        """Update the evidence of each camera, by its newest boot."""
        for (name, boot), chain in written.chains.items():
            camera = self._cameras.get(name)
            if camera is not None and camera.last is not None and boot in (camera.last.boot, camera.boot):
                camera.boot, camera.level, camera.is_new = boot, chain.level(self._rule), chain.is_new(self._rule)
                self._unsaved.setdefault(name, self._taken_ms)
                self._probe_changes.add(name)
                self._unjudged.add(name)

    def _sends(self, camera: Camera) -> None:
        """Note that frames of the camera come or may come, and set its deadline."""
        self._probe_changes.add(camera.name)
        if not camera.sending:
            self._set_deadline(camera, self._silence_ms(camera))

    def _set_deadline(self, camera: Camera, at_ms: float) -> None:
        if camera.silent_at_ms != at_ms:
            camera.silent_at_ms = at_ms
            heapq.heappush(self._silent_at, (at_ms, camera.name))

    def _silence_ms(self, camera: Camera) -> float:
        return camera.heard_ms + 1000 * camera.patience_s(self._silent_after_s)

    def expire(self, now_ms: int) -> None:
        """Note the cameras that have fallen silent by now."""
        while self._silent_at and self._silent_at[0][0] < now_ms:
            at_ms, name = heapq.heappop(self._silent_at)
            camera = self._cameras.get(name)
            if camera is None or camera.silent_at_ms != at_ms:
                continue
            until_ms = self._silence_ms(camera)
            if until_ms >= now_ms:
                self._set_deadline(camera, until_ms)
                continue
            camera.silent_at_ms = math.inf
            self._probe_changes.add(name)
            self._unjudged.add(name)

    def revoke(self, accepted_from: Mapping[str, int]) -> None:
        """Note which announced key generations are below the lowest accepted one."""
        for name, lowest in accepted_from.items():
            camera = self._cameras.get(name)
            if camera is None or camera.meta is None:
                continue
            is_revoked = camera.meta.key_generation < lowest
            if camera.is_revoked != is_revoked:
                camera.is_revoked = is_revoked
                self._unjudged.add(name)

    def judge(self, now_ms: int, at_ms: int) -> list[tuple[SavedState, int]]:
        """Judge the cameras that changed. Return the states to save, each with the Unix time up to which the camera's
        frames are known.
        """
        self.expire(now_ms)
        names, self._unjudged = self._unjudged, set()
        found = []
        for name in names:
            camera = self._cameras.get(name)
            if camera is None:
                continue
            judged = camera.judge(now_ms, self._silent_after_s)
            self._suspicion.pop(name, None)
            if suspicion := max(camera.level, camera.flagged_share() or 0.0):
                self._suspicion[name] = suspicion
            self._faulty.pop(name, None)
            # A camera that has never sent a frame may not have begun yet.
            has_begun = camera.last is not None or judged.state is not State.SILENT
            if judged.state.is_fault and has_begun and not camera.is_revoked:
                self._faulty[name] = judged.state
            if judged.state is State.REFUSED:
                # No event marks the end of refusals: judge again until they have ended.
                self._unjudged.add(name)
            patience_s = camera.patience_s(self._silent_after_s)
            if (judged, patience_s) != (camera.judged, camera.judged_patience_s):
                if camera.judged is None or camera.judged.state is not judged.state:
                    camera.since_ms = at_ms
                camera.judged, camera.judged_patience_s = judged, patience_s
                found.append((SavedState(name, judged, camera.since_ms, patience_s), camera.known_to_ms))
        return found

    def worst(self, count: int) -> list[tuple[str, State]]:
        """Return the cameras in a state that needs attention, at most `count`, the worst first.

        Removed ones are left out.
        """
        found = (
            (name, state)
            for name, state in self._faulty.items()
            if self._cameras[name].recorded_ms > self._removed_ms.get(name, -1)
        )
        return heapq.nsmallest(count, found, key=lambda each: (each[1].severity, each[0]))

    def remove(self, removed_ms: Mapping[str, int]) -> None:
        """Set the cameras that people have removed, each until it sends again, with the Unix time of the removal."""
        self._removed_ms = removed_ms

    def pop_previews(self, count: int) -> list[tuple[Camera, bytes]]:
        """Take the newest previews of at most `count` cameras, the longest waiting first."""
        found: list[tuple[Camera, bytes]] = []
        while self._previews and len(found) < count:
            name, jpeg = self._previews.popitem(last=False)
            self._preview_bytes -= len(jpeg)
            if name in self._cameras:
                found.append((self._cameras[name], jpeg))
        return found

    def mark_unjudged(self, cameras: Iterable[Camera]) -> None:
        """Judge these cameras again: their pictures were checked."""
        self._unjudged.update(camera.name for camera in cameras)

    def all(self) -> list[Camera]:
        """Return all cameras, by name."""
        return [self._cameras[name] for name in sorted(self._cameras)]

    def for_metrics(self, count: int, now_ms: int) -> list[Camera]:
        """Return the cameras for the metrics, at most `count`; of healthy ones, those with a recent frame.

        The faulty ones come first, then those with the most evidence or flagged probes, then those of the last call,
        then those with the most recent frames.
        """

        def is_recent(name: str) -> bool:
            camera = self._cameras.get(name)
            if camera is None or (age_s := camera.age_s(now_ms)) is None:
                return False
            # A camera with one frame an hour is not silent yet.
            return age_s <= max(self._forget_after_s, camera.patience_s(self._silent_after_s))

        faulty = (name for name, _ in self.worst(count))
        suspect = heapq.nlargest(count, filter(is_recent, self._suspicion), key=self._suspicion.__getitem__)
        newest = takewhile(is_recent, reversed(self._by_last_frame))
        ordered = dict.fromkeys([*faulty, *suspect, *filter(is_recent, self._shown)])
        for name in newest:
            if len(ordered) >= count:
                break
            ordered[name] = None
        self._shown = list(islice(ordered, count))
        return [self._cameras[name] for name in self._shown]

    def pop_probe_changes(self, now_ms: int) -> list[ProbeCandidate | str]:
        """Return changes for the plan of probes since the last call: cameras that send frames, names that do not."""
        self.expire(now_ms)
        names, self._probe_changes = self._probe_changes, set()
        return [self._candidate(name, now_ms) for name in sorted(names)]

    def _candidate(self, name: str, now_ms: int) -> ProbeCandidate | str:
        camera = self._cameras.get(name)
        if camera is None or camera.meta is None or not camera.sending:
            return name
        if camera.judge(now_ms, self._silent_after_s).state not in _SENDING:
            return name
        return ProbeCandidate(name, camera.level, camera.is_new, camera.meta)

    def unsaved(self, count: int) -> tuple[list[Camera], int]:
        """Return at most `count` cameras to save, and the time of recording of the first frame unsaved after that."""
        names = list(islice(self._unsaved, count))
        cameras = [self._cameras[name] for name in names if name in self._cameras]
        for name in names:
            del self._unsaved[name]
        return cameras, next(iter(self._unsaved.values()), self._taken_ms)

    def _camera(self, name: str) -> Camera:
        camera = self._cameras.get(name)
        if camera is None:
            camera = self._cameras[name] = Camera(name)
        return camera

    def _make_room(self) -> None:
        # Invented cameras displace only other cameras without a frame.
        strangers = len(self._cameras) - len(self._by_last_frame)
        if strangers > 2 * self._bounds.strangers:
            names = [name for name, camera in self._cameras.items() if camera.last is None]
            self._forget(names[: len(names) - self._bounds.strangers])
        if len(self._by_last_frame) > MAX_CAMERAS + self._bounds.strangers:
            self._forget(list(islice(self._by_last_frame, len(self._by_last_frame) - MAX_CAMERAS)))

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            for known in (
                self._cameras,
                self._by_last_frame,
                self._unsaved,
                self._faulty,
                self._suspicion,
            ):
                known.pop(name, None)
            self._preview_bytes -= len(self._previews.pop(name, b""))
            self._probe_changes.add(name)

    def _keep_preview(self, name: str, boot: int, seq: int, picture: bytes) -> None:
        camera = self._cameras[name]
        if camera.pictured is not None and not follows(boot, seq, *camera.pictured):
            return
        camera.pictured = (boot, seq)
        held = self._preview_bytes - len(self._previews.get(name, b"")) + len(picture)
        # A new camera displaces no other, which may have waited for longer.
        has_place = name in self._previews or len(self._previews) < self._bounds.preview_cameras
        if has_place and held <= self._bounds.preview_bytes:
            self._previews[name], self._preview_bytes = picture, held
