"""Evidence of a backdoor trigger, per boot of a camera: checked frames folded by identity, in their order.

Frames arrive in any order and more than once. Each waits until all earlier frames are accounted for. The rule of
`schemas.evidence.track` then reads them in the order of their sequence numbers, so arrival order does not affect the
result. A frame with a p-value is judged by it, any other by STRIP's entropy; each has its own track.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from consumers.records.rows import Window
from schemas.evidence.alarms import STRIP, TrackAlarm, Tracks, advance_all
from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Classes, Probe
from schemas.pointillist_pb2 import Alert, Range, Statistic
from schemas.pointillist_pb2 import Window as SentWindow

Probes = tuple[Probe, ...]
"""Checked frames in the order of their sequence numbers, each once."""


class Chain(NamedTuple):
    """The evidence state of one boot of a camera. Immutable: folding and reading return a new one."""

    following: int = 0
    """The first sequence number that the rule has not read."""
    waiting: Probes = ()
    """Checked frames from `following` on."""
    tracks: Tracks = Tracks()
    """The track of each kind."""

    def fold(self, new: Iterable[Probe]) -> Chain:
        """Return the chain with `new` frames waiting. Duplicates and frames already read change nothing."""
        known = {each.seq: each for each in new if each.seq >= self.following}
        known |= {each.seq: each for each in self.waiting}
        return self._replace(waiting=tuple(known[seq] for seq in sorted(known)))

    def level(self, rule: EvidenceRule) -> float:
        """Return the evidence level: 0 without evidence, 1 at an alarm."""
        return self.tracks.level(rule)

    def is_new(self, rule: EvidenceRule) -> bool:
        """Return whether the camera has no baseline yet."""
        return all(len(track.history) < rule.baseline_probes for track in self.tracks)

    def read(self, until: int, rule: EvidenceRule, classes: Classes) -> tuple[Chain, list[TrackAlarm]]:
        """Apply the rule to the waiting frames before `until`. Return the new chain and the alarms."""
        tracks, alarms = self.tracks, list[TrackAlarm]()
        for probe in self.waiting:
            if probe.seq >= until:
                break
            tracks, new = advance_all(tracks, probe, rule, classes)
            alarms += new
        left = tuple(each for each in self.waiting if each.seq >= until)
        return Chain(max(self.following, until), left, tracks), alarms


def alert_id(camera: str, boot: int, seq: int, kind: str = STRIP) -> str:
    """Return the alert's id, a hash of camera, boot, kind and the frame at which the sum reached its limit.

    Every recorder computes the same id.
    """
    name = f"{kind}\0{camera}\0{boot}\0{seq}".encode()
    return blake2b(name, digest_size=16, person=b"pl-alert").hexdigest()


def raise_alert(
    camera: str,
    boot: int,
    found: TrackAlarm,
    raised_ms: int,
    thumbnail: bytes = b"",
    window: Window | None = None,
) -> Alert:
    """Return the alert for an alarm, with its evidence. `window` is the place on which the label depends."""
    kind, alarm = found
    run = alarm.run
    ((class_id, _),) = Counter(each.class_id for each in run).most_common(1)
    ((statistic, _),) = Counter(each.statistic for each in run).most_common(1)
    alert = Alert(
        alert_id=alert_id(camera, boot, run[-1].seq, kind),
        camera_id=camera,
        kind=kind,
        raised_ms=raised_ms,
        boot_id=boot,
        frames=Range(first=run[0].seq, last=run[-1].seq),
        checked=len(run),
        flagged=sum(each.flagged for each in run),
        thumbnail=thumbnail,
        evidence_octaves=alarm.total,
        class_id=class_id,
        statistic=Statistic.Name(statistic),
        window=None if window is None else SentWindow(**window._asdict()),
    )
    if kind == STRIP:
        alert.mean_entropy_bits = math.fsum(each.entropy_bits for each in run) / len(run)
        alert.threshold_bits = run[-1].threshold_bits
        alert.baseline_bits = alarm.baseline_bits or 0.0
    else:
        alert.mean_p_value = 2 ** (math.fsum(each.octaves for each in run) / len(run))
        alert.p_value_threshold = run[-1].p_value_threshold
        alert.baseline_p_value = alarm.baseline_bits or 0.0
    return alert
