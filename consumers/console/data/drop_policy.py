"""The rule by which a policy steers one camera's drop ratio. Pure functions; `docs/adr/0072-drop-policies.md`."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from schemas.limits import dropped_per_block

STEPS: Final = 4
"""Steps from the lowest to the highest ratio, for a short uplink and for the way back."""
SETTLED: Final = 0.5
"""Share of a threshold below which evidence and waiting frames count as calm."""
RECOVERED: Final = 0.05
"""Accuracy above its threshold from which on it counts as calm."""


class DropPolicy(NamedTuple):
    """A policy for a group of cameras. Ratios are shares of the pixels that are not sent."""

    cameras: str
    """The group: `site/camera`, or a site and the beginning of names with `*`, such as `north/gate-*`."""
    lowest: float
    """Ratio at rest."""
    highest: float
    evidence: float | None
    """Evidence of a trigger, 0 to 1, from which on a camera gets the highest ratio; None ignores it."""
    accuracy: float | None
    """Accuracy of the group's attacked frames below which its cameras get the highest ratio; None ignores it."""
    waiting_s: float | None
    """Seconds of frames in a camera's spool from which on its ratio rises by a step; None ignores the uplink."""
    least_s: float
    """Least time between two changes at a camera."""
    calm_s: float
    """Time without any reason after which the ratio falls by a step."""
    who: str
    """The user."""
    at_ms: int
    """Time of the decision, Unix time in milliseconds."""

    @property
    def name(self) -> str:
        """The author of its commands in the audit log."""
        return f"policy {self.cameras}"

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest number of dropped pixels in a block of 64."""
        return dropped_per_block(self.lowest), dropped_per_block(self.highest)


class DropInputs(NamedTuple):
    """The recorded values that decide about one camera."""

    now_ms: int
    """Time of a monotonic clock."""
    evidence: float = 0.0
    accuracy: float | None = None
    """Share of the group's recent attacked frames with the correct verdict; None for too few."""
    waiting_s: float | None = None
    """Seconds of frames that wait in the spool, by the newest ledger; None without one."""
    shed: int = 0
    """Frames that the full spool has shed recently."""


class DropState(NamedTuple):
    """The state of one camera under a policy."""

    dropped: int
    """Wanted number of dropped pixels in a block of 64."""
    changed_ms: int | None = None
    """Time of the last change, on the clock of the inputs; None before the first."""
    calm_ms: int | None = None
    """Time since which there is no reason for a higher ratio, or of the last step down; None while there is one."""
    reason: str = ""
    """Reason of the last change, in plain words."""


def decide(policy: DropPolicy, state: DropState, inputs: DropInputs) -> DropState:
    """Return the next state.

    A threat raises the ratio to its upper bound at once, a short uplink by one step of a quarter of the range. After
    `calm_s` without a reason, and again after each further `calm_s`, it falls by a step. Between its thresholds an
    input neither raises nor counts as calm. Two changes are at least `least_s` apart; only the bounds apply at once.
    """
    lowest, highest = policy.bounds
    held = min(max(state.dropped, lowest), highest)
    threat, short = _threat(policy, inputs), _shortage(policy, inputs)
    calm_ms = state.calm_ms
    if threat or short or not _is_calm(policy, inputs):
        calm_ms = None
    elif calm_ms is None:
        calm_ms = inputs.now_ms
    step = max(1, math.ceil((highest - lowest) / STEPS))
    dropped, reason = held, "the bounds of the policy"
    if state.changed_ms is None or inputs.now_ms - state.changed_ms >= 1000 * policy.least_s:
        if threat:
            dropped, reason = highest, threat
        elif short:
            dropped, reason = min(held + step, highest), short
        elif calm_ms is not None and inputs.now_ms - calm_ms >= 1000 * policy.calm_s:
            dropped, reason = max(held - step, lowest), f"calm for {policy.calm_s:g} s"
            calm_ms = inputs.now_ms
    if dropped == state.dropped:
        return state._replace(calm_ms=calm_ms)
    return DropState(dropped, inputs.now_ms, calm_ms, reason)


def _threat(policy: DropPolicy, inputs: DropInputs) -> str:
    """Return the threat in plain words; empty without one."""
    if policy.evidence is not None and inputs.evidence >= policy.evidence:
        return f"evidence of a trigger {inputs.evidence:.2f}, from {policy.evidence:g} on"
    if policy.accuracy is not None and inputs.accuracy is not None and inputs.accuracy < policy.accuracy:
        return f"accuracy under attack {inputs.accuracy:.2f}, below {policy.accuracy:g}"
    return ""


def _shortage(policy: DropPolicy, inputs: DropInputs) -> str:
    """Return in plain words why the uplink is short; empty if it is not."""
    if policy.waiting_s is None:
        return ""
    if inputs.shed:
        return f"{inputs.shed} frames shed by the full spool"
    if inputs.waiting_s is not None and inputs.waiting_s >= policy.waiting_s:
        return f"{inputs.waiting_s:.0f} s of frames wait in the spool, from {policy.waiting_s:g} s on"
    return ""


def _is_calm(policy: DropPolicy, inputs: DropInputs) -> bool:
    """Return whether all values are well within their thresholds. An unknown value is no reason for a higher ratio."""
    if policy.evidence is not None and inputs.evidence >= SETTLED * policy.evidence:
        return False
    if policy.accuracy is not None and inputs.accuracy is not None and inputs.accuracy < policy.accuracy + RECOVERED:
        return False
    waiting_s = inputs.waiting_s or 0.0
    return policy.waiting_s is None or waiting_s < SETTLED * policy.waiting_s
