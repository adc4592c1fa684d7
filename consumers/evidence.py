"""Evidence of a backdoor trigger, per camera: checked probes folded by identity into windows of sequence numbers.

Frames come in any order and more than once, so nothing here depends on either: a window is the set of its probes, and
the rule reads them in the order of their sequence numbers, up to the first frame that is not accounted for yet.
`strip_alarm` is the rule; a sequential test over the same ordered entropies can take its place.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from consumers.settings import EvidenceRule
from schemas.pointillist_pb2 import Alert, Range
from schemas.ranges import RangeSet

STRIP: Final = "strip"
"""The kind of the alerts that this evidence raises."""

_PROBE = struct.Struct("<QffB")


class Probe(NamedTuple):
    """What STRIP found in one checked frame."""

    seq: int
    entropy_bits: float
    threshold_bits: float
    flagged: bool


class Window(NamedTuple):
    """`number` × W to (`number` + 1) × W − 1 of the sequence numbers of one boot."""

    camera: str
    boot: int
    number: int

    def alert_id(self, kind: str) -> str:
        """The same for the same window and kind, whoever computes it."""
        name = f"{kind}\0{self.camera}\0{self.boot}\0{self.number}".encode()
        return blake2b(name, digest_size=16, person=b"pl-alert").hexdigest()

    def span(self, rule: EvidenceRule) -> tuple[int, int]:
        """The first and the last sequence number."""
        first = self.number * rule.window_frames
        return first, first + rule.window_frames - 1


Probes = tuple[Probe, ...]
"""The probes of one window, in the order of their sequence numbers, each once."""


def fold(probes: Probes, new: Iterable[Probe]) -> Probes:
    """The window's probes with `new` ones; a sequence number that is there already stays as it is."""
    known = {probe.seq: probe for probe in new} | {probe.seq: probe for probe in probes}
    return tuple(known[seq] for seq in sorted(known))


def entropy_sum(probes: Probes) -> float:
    """Bits, exactly rounded, so that the order of the additions does not show."""
    return math.fsum(probe.entropy_bits for probe in probes)


def pack(probes: Probes) -> bytes:
    """The probes as the database keeps them."""
    return b"".join(_PROBE.pack(*probe) for probe in probes)


def unpack(data: bytes) -> Probes:
    """The inverse of `pack`."""
    return tuple(
        Probe(seq, entropy, threshold, bool(flag)) for seq, entropy, threshold, flag in _PROBE.iter_unpack(data)
    )


def is_candidate(probes: Probes, rule: EvidenceRule) -> bool:
    """Whether so many are flagged that the rule may hold somewhere."""
    return sum(probe.flagged for probe in probes) >= rule.min_flagged


def accounted_until(window: Window, accounted: RangeSet, rule: EvidenceRule) -> int:
    """The first sequence number of the window that is neither recorded, dead-lettered nor shed; its end if all are."""
    start, last = window.span(rule)
    for first, until in accounted.ranges():
        if first <= start <= until:
            return min(until, last) + 1
    return start


def strip_alarm(probes: Sequence[Probe], rule: EvidenceRule) -> int | None:
    """How many of the ordered probes it takes until the rule holds; None when it never does."""
    flagged = 0
    for checked, probe in enumerate(probes, 1):
        flagged += probe.flagged
        if flagged >= rule.min_flagged and flagged >= rule.min_flagged_share * checked:
            return checked
    return None


def raise_alert(window: Window, probes: Sequence[Probe], raised_ms: int, thumbnail: bytes = b"") -> Alert:
    """The alert for `probes`, the ones up to which the rule holds."""
    return Alert(
        alert_id=window.alert_id(STRIP),
        camera_id=window.camera,
        kind=STRIP,
        raised_ms=raised_ms,
        boot_id=window.boot,
        frames=Range(first=probes[0].seq, last=probes[-1].seq),
        checked=len(probes),
        flagged=sum(probe.flagged for probe in probes),
        mean_entropy_bits=math.fsum(probe.entropy_bits for probe in probes) / len(probes),
        threshold_bits=probes[-1].threshold_bits,
        thumbnail=thumbnail,
    )
