"""Evidence of a backdoor trigger, per boot of a camera: checked frames folded by identity, in their order.

Frames arrive in any order and more than once. Each waits until all earlier frames are accounted for. The rule of
`schemas.evidence.track` then reads them in the order of their sequence numbers, so arrival order does not affect the
result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from schemas.evidence.rule import EvidenceRule
from schemas.evidence.track import Alarm, Classes, Probe, Track, advance
from schemas.pointillist_pb2 import Alert, Range

STRIP: Final = "strip"
"""The kind of alerts that this evidence raises."""

Probes = tuple[Probe, ...]
"""Checked frames in the order of their sequence numbers, each once."""


class Chain(NamedTuple):
    """The evidence state of one boot of a camera. Immutable: folding and reading return a new one."""

    following: int = 0
    """The first sequence number that the rule has not read."""
    waiting: Probes = ()
    """Checked frames from `following` on."""
    track: Track = Track()

    def fold(self, new: Iterable[Probe]) -> Chain:
        """Return the chain with `new` frames waiting. Duplicates and frames already read change nothing."""
        known = {each.seq: each for each in new if each.seq >= self.following}
        known |= {each.seq: each for each in self.waiting}
        return self._replace(waiting=tuple(known[seq] for seq in sorted(known)))

    def level(self, rule: EvidenceRule) -> float:
        """Return the evidence level: 0 without evidence, 1 at an alarm."""
        return self.track.level(rule)

    def is_new(self, rule: EvidenceRule) -> bool:
        """Return whether the camera has no baseline yet."""
        return len(self.track.history) < rule.baseline_probes

    def read(self, until: int, rule: EvidenceRule, classes: Classes) -> tuple[Chain, list[Alarm]]:
        """Apply the rule to the waiting frames before `until`. Return the new chain and the alarms."""
        track, alarms = self.track, []
        for probe in self.waiting:
            if probe.seq >= until:
                break
            track, alarm = advance(track, probe, rule, classes)
            if alarm is not None:
                alarms.append(alarm)
        left = tuple(each for each in self.waiting if each.seq >= until)
        return Chain(max(self.following, until), left, track), alarms


def alert_id(camera: str, boot: int, seq: int, kind: str = STRIP) -> str:
    """Return the alert's id, a hash of camera, boot, kind and the frame at which the sum reached its limit.

    Every recorder computes the same id.
    """
    name = f"{kind}\0{camera}\0{boot}\0{seq}".encode()
    return blake2b(name, digest_size=16, person=b"pl-alert").hexdigest()


def raise_alert(camera: str, boot: int, alarm: Alarm, raised_ms: int, thumbnail: bytes = b"") -> Alert:
    """Return the alert for an alarm, with its evidence."""
    run = alarm.run
    ((class_id, _),) = Counter(each.class_id for each in run).most_common(1)
    return Alert(
        alert_id=alert_id(camera, boot, run[-1].seq),
        camera_id=camera,
        kind=STRIP,
        raised_ms=raised_ms,
        boot_id=boot,
        frames=Range(first=run[0].seq, last=run[-1].seq),
        checked=len(run),
        flagged=sum(each.flagged for each in run),
        mean_entropy_bits=math.fsum(each.entropy_bits for each in run) / len(run),
        threshold_bits=run[-1].threshold_bits,
        thumbnail=thumbnail,
        baseline_bits=alarm.baseline_bits or 0.0,
        evidence_octaves=alarm.total,
        class_id=class_id,
    )
