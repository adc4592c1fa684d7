"""The scheduler that divides the device between classification, STRIP and the second model of a rollout."""

from __future__ import annotations

from typing import Final

_MEMORY_S: Final = 1.0
_LONGEST_TURN_S: Final = 20.0
"""Seconds of a turn that are charged at most: the machine may have been paused."""
_MOST_OWED_S: Final = 0.02
"""Time that comparisons can save up: they must not delay frames by more at once."""
_SMOOTHING: Final = 0.3
_MOST: Final = 64


class DeviceScheduler:
    """Divides the device between classification, STRIP and comparisons.

    While both have work, STRIP gets `share` of the time; if only one has, it gets all. The state is STRIP's lead over
    its share in seconds. It is limited to one second, or to the last turn that others waited for: neither can save up a
    long turn, and a turn of several seconds is charged in full. A comparison runs when no other work is due, or when
    its share of the remaining time has added up; it pays for the time in which others waited.
    """

    def __init__(self, share: float, slice_s: float, probe_s: float = 0.0, comparison_share: float = 0.15) -> None:
        """`probe_s` is the first estimate of the time of one probe."""
        self._share = share
        self._slice_s = slice_s
        self._probe_s = probe_s
        self._ahead_s = 0.0
        self._comparison_share = comparison_share
        self._owed_s = 0.0

    def strip_is_next(self, batch_ready: bool, probe_waits: bool) -> bool:
        """Return whether STRIP has the next turn."""
        return probe_waits and (not batch_ready or self._ahead_s <= 0)

    def comparison_is_next(self, other_work: bool, comparison_waits: bool) -> bool:
        """Return whether a comparison has the next turn; `other_work` is whether a batch or a probe is due."""
        return comparison_waits and (not other_work or self._owed_s > 0)

    def charge_comparison(self, waited_s: float) -> None:
        """Charge comparisons for the seconds in which other work waited for them."""
        self._owed_s = max(-_most_s(waited_s), self._owed_s - waited_s)

    def credit_comparison(self, seconds: float) -> None:
        """Credit comparisons with their share of `seconds` in which none ran."""
        self._owed_s = min(_MOST_OWED_S, self._owed_s + seconds * self._comparison_share)

    def expect_probe(self, probe_s: float) -> None:
        """Replace the estimate of the time of one probe: another model serves from now on."""
        self._probe_s = probe_s

    def probes_in_turn(self) -> int:
        """Return the number of probes that fit into one slice of time; at least one."""
        if self._probe_s <= 0:
            return 1
        return max(1, min(_MOST, int(self._slice_s / self._probe_s)))

    def charge_classification(self, seconds: float, probe_waits: bool) -> None:
        """Charge classification for `seconds`; if a probe waited meanwhile, STRIP falls behind by its share of them."""
        self.credit_comparison(seconds)
        if probe_waits:
            self._ahead_s = max(-_MEMORY_S, self._ahead_s - seconds * self._share)

    def charge_strip(self, seconds: float, probes: int, waited_s: float = 0.0) -> None:
        """Charge STRIP for `seconds` with this many probes; in full for the seconds in which a ready batch waited."""
        self.credit_comparison(seconds)
        rest = 1 - self._share
        self._ahead_s = min(_most_s(waited_s * rest), self._ahead_s + seconds * rest)
        per_probe_s = seconds / probes
        self._probe_s += (per_probe_s - self._probe_s) * (_SMOOTHING if self._probe_s > 0 else 1)


def _most_s(waited_s: float) -> float:
    """Return the most seconds by which a turn for which others have waited may put its work ahead of theirs."""
    return min(_LONGEST_TURN_S, max(_MEMORY_S, waited_s))
