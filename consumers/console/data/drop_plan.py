"""The plan of drop ratios: the state of each camera under a policy, and the commands that are due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from consumers.cameras.camera import Camera
from consumers.console.access.sight import Sight, site_of
from consumers.console.data.backlogs import Backlog, Backlogs
from consumers.console.data.cards import Card
from consumers.console.data.drop_policy import DropInputs, DropPolicy, DropState, decide
from consumers.console.data.fleet import Fleet
from schemas.camera_groups import most_specific
from schemas.limits import BLOCK_PIXELS
from schemas.pointillist_pb2 import OFFLINE

MOST_TRIES: Final = 5
"""Commands to a camera that does not obey."""
_AGAIN_MS: Final = 60_000
"""Delay before a command is sent again, doubled with each try."""
_ATTACKED_MS: Final = 600_000
"""Age up to which attacked frames count."""
LEAST_ATTACKED: Final = 50
"""Attacked frames of a group from which on their accuracy counts."""


class DropChange(NamedTuple):
    """A command that is due."""

    camera: str
    policy: DropPolicy
    running: int
    """Dropped pixels in a block that the camera announces."""
    wanted: int
    reason: str

    @property
    def detail(self) -> str:
        """The change and its reason in plain words."""
        return f"drop ratio {self.running / BLOCK_PIXELS:.3g} to {self.wanted / BLOCK_PIXELS:.3g}: {self.reason}"


class SteeredCamera(NamedTuple):
    """A camera under a policy, as pages show it."""

    policy: DropPolicy
    drop_ratio: float
    """The wanted drop ratio."""
    is_raised: bool
    has_obeyed: bool
    """Whether the camera announced the wanted ratio when the plan last looked."""
    reason: str
    """Reason of the last change; empty before the first."""


class GroupCounts(NamedTuple):
    """The number of cameras that a policy steers."""

    steered: int
    raised: int
    """Cameras above the lowest ratio."""
    disobeying: int
    """Cameras that do not announce the wanted ratio."""


@dataclass(slots=True)
class _Steered:
    policy: DropPolicy
    state: DropState
    running: int
    tries: int = 0
    due_ms: int = 0


@dataclass
class DropPlan:
    """The cameras under policies. For one event loop."""

    backlogs: Backlogs = field(default_factory=Backlogs)
    _by_group: dict[str, DropPolicy] = field(default_factory=dict)
    _steered: dict[str, _Steered] = field(default_factory=dict)

    @property
    def policies(self) -> list[DropPolicy]:
        """The policies in force, by group."""
        return list(self._by_group.values())

    def adopt(self, policies: Iterable[DropPolicy]) -> None:
        """Replace the policies."""
        self._by_group = {each.cameras: each for each in policies}

    @property
    def is_idle(self) -> bool:
        """Whether there is no policy, and no camera to return after one was removed."""
        return not (self._by_group or self._steered)

    def uplinks(self) -> Sight:
        """Return the sites whose ledgers are needed."""
        return Sight(frozenset(site_of(each.cameras) for each in self.policies if each.waiting_s is not None))

    def policy_of(self, camera: str) -> DropPolicy | None:
        """Return the policy that steers a camera, None without one."""
        return most_specific(camera, self._by_group)

    def steered(self, camera: str) -> SteeredCamera | None:
        """Return a camera as it is steered; None before the plan has seen it."""
        found, policy = self._steered.get(camera), self.policy_of(camera)
        if found is None or policy is None:
            return None
        state, (lowest, _) = found.state, policy.bounds
        wanted = state.dropped
        return SteeredCamera(policy, wanted / BLOCK_PIXELS, wanted > lowest, found.running == wanted, state.reason)

    def counts(self) -> dict[str, GroupCounts]:
        """Return the counts of each group."""
        found = {group: Counter[str]() for group in self._by_group}
        for name in self._steered:
            if (each := self.steered(name)) is not None:
                found[each.policy.cameras].update(
                    steered=1, raised=int(each.is_raised), disobeying=int(not each.has_obeyed)
                )
        return {
            group: GroupCounts(each["steered"], each["raised"], each["disobeying"]) for group, each in found.items()
        }

    def changes(self, fleet: Fleet, found: dict[str, Backlog], now_ms: int) -> list[DropChange]:
        """Decide about each camera. Return the due commands, those that raise a ratio first.

        `found` are newly read ledgers, `now_ms` is on a monotonic clock. A camera that is gone keeps its state: nothing
        is decided and sent until it is back.
        """
        found_policies = ((each.name, self.policy_of(each.name)) for each in fleet.own_cards())
        groups = {name: policy for name, policy in found_policies if policy is not None}
        self.backlogs.note({name: each for name, each in found.items() if name in groups}, now_ms)
        self.backlogs.keep(set(groups))
        due = self._release_cameras(fleet, groups)
        accuracies = _accuracies(fleet, groups, now_ms)
        for name, policy in groups.items():
            card, camera = fleet.card(name), fleet.camera(name)
            if card is None or camera is None or camera.meta is None or _is_gone(card, camera):
                if (away := self._steered.get(name)) is not None:
                    # Nobody has seen it calm meanwhile.
                    away.state = away.state._replace(calm_ms=None)
                continue
            rate = camera.meta.frames_per_second or card.frames_per_second
            inputs = DropInputs(
                now_ms,
                evidence=camera.level,
                accuracy=accuracies[policy],
                waiting_s=self.backlogs.waiting_s(name, rate),
                shed=self.backlogs.shed(name, now_ms),
            )
            change = self._decide(name, policy, camera.meta.dropped_per_block, inputs)
            if change is not None:
                due.append(change)
        return sorted(due, key=lambda each: each.wanted <= each.running)

    def _release_cameras(self, fleet: Fleet, groups: Mapping[str, DropPolicy]) -> list[DropChange]:
        """Forget the cameras without a policy. Return those that go back to the lowest ratio of the removed one."""
        due = []
        for name in self._steered.keys() - groups.keys():
            gone = self._steered.pop(name)
            lowest, _ = gone.policy.bounds
            camera = fleet.camera(name)
            if camera is None:
                continue
            running = camera.meta.dropped_per_block if camera.meta is not None else gone.running
            if max(gone.state.dropped, running) > lowest:
                due.append(DropChange(name, gone.policy, running, lowest, "the policy was removed"))
        return due

    def _decide(self, name: str, policy: DropPolicy, running: int, inputs: DropInputs) -> DropChange | None:
        steered = self._steered.get(name)
        if steered is None:
            # What the camera runs outlives a restart of the console.
            steered = self._steered[name] = _Steered(policy, DropState(running), running)
        elif steered.policy != policy:
            steered.policy, steered.state = policy, steered.state._replace(changed_ms=None)
        before, steered.running = steered.state.dropped, running
        steered.state = decide(policy, steered.state, inputs)
        wanted = steered.state.dropped
        if wanted != before:
            steered.tries = steered.due_ms = 0
        if running == wanted:
            steered.tries = 0
            return None
        if steered.tries >= MOST_TRIES or inputs.now_ms < steered.due_ms:
            return None
        steered.due_ms = inputs.now_ms + _AGAIN_MS * 2**steered.tries
        steered.tries += 1
        again = f", try {steered.tries} of {MOST_TRIES}" if steered.tries > 1 else ""
        return DropChange(name, policy, running, wanted, (steered.state.reason or "the policy's ratio") + again)

    def postpone(self, unsent: Iterable[DropChange]) -> None:
        """Take back commands that were not sent. They are due again with the next decision."""
        for change in unsent:
            steered = self._steered.get(change.camera)
            if steered is not None:
                steered.tries, steered.due_ms = max(0, steered.tries - 1), 0
            elif self.policy_of(change.camera) is None:  # the return to the ratio of a removed policy
                self._steered[change.camera] = _Steered(change.policy, DropState(change.running), change.running)


def _is_gone(card: Card, camera: Camera) -> bool:
    """Return whether a command would not reach the camera now. An alert hides on its card that it is offline."""
    is_offline = camera.status is not None and camera.status.state == OFFLINE
    return card.is_gone or (is_offline and not card.frames_per_second)


def _accuracies(fleet: Fleet, groups: Mapping[str, DropPolicy], now_ms: int) -> dict[DropPolicy, float | None]:
    """Return the accuracy of each group's attacked frames; None for too few."""
    found: dict[DropPolicy, list[bool]] = {policy: [] for policy in groups.values()}
    for name, policy in groups.items():
        if policy.accuracy is not None:
            found[policy] += fleet.attacked(name, now_ms - _ATTACKED_MS)
    return {
        policy: sum(judged) / len(judged) if len(judged) >= LEAST_ATTACKED else None for policy, judged in found.items()
    }
