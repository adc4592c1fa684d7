"""The roles of the system, as the console, `pointillist status` and the table of `up` show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from consumers.console.data.rate_text import frame_rate
from schemas import metrics
from schemas.topics import Channel, KafkaTopic

PASSED: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    (metrics.CAMERA_FRAMES.name, {"outcome": "published"}),
    (metrics.BRIDGE_MESSAGES.name, {"channel": Channel.FRAME.value, "outcome": "forwarded"}),
    (metrics.KAFKA_END.name, {"topic": KafkaTopic.FRAMES.value}),
    (metrics.FRAMES_TOTAL.name, {}),
    (metrics.RECORDED.name, {"outcome": "recorded"}),
)
"""The counters of frames that have passed a part of their way, with their labels."""
NO_ANSWER_S: Final = 3.0
"""A role whose health page gives no response for this many seconds is `not answering`."""
UP: Final = "up"
_SENTENCES: Final = {"not ready": "is not ready", "not answering": "does not answer", "gone": "has ended"}


@dataclass(frozen=True)
class RoleState:
    """One role: `up`, `not ready`, `not answering` or `gone`, and the reason."""

    name: str
    state: str
    listen: str | None
    pid: int | None
    detail: str = ""
    """The reason, if the role is not up."""
    backlog: int | None = None
    """Frames or records waiting for this role; None if it counts none."""
    restarts: int = 0
    """The number of restarts."""
    url: str | None = None
    """The address for a browser, if it is not `http://` with `listen`."""
    frames: float | None = field(default=None, compare=False)
    """Frames that have passed it since its start; None if it counts none."""

    @property
    def is_well(self) -> bool:
        """Whether the role works."""
        return self.state == UP

    @property
    def sentence(self) -> str:
        """The role's state in words, such as `processor-1 does not answer`."""
        return f"{self.name} {_SENTENCES.get(self.state, f'is {self.state}')}"


@dataclass(frozen=True)
class Node:
    """One part of the way of a frame, made of the roles that do the same work."""

    title: str
    level: str
    """`good`, `warn`, `bad`, or `unknown` if no role of it is known."""
    value: str
    """The most important number."""
    details: tuple[str, ...] = ()


_WAY: Final = (("MQTT", "mosquitto"), ("Bridge", "bridge"), ("Kafka", "kafka"), ("Processors", "processor"),
               ("Recorder", "recorder"))  # fmt: skip
"""The parts of the way behind the cameras, each with the name of its roles up to a number."""


def chain(
    roles: Sequence[RoleState],
    levels: Sequence[str],
    frames_per_second: float,
    rates: Mapping[str, float] | None = None,
) -> list[Node]:
    """Return the way of a frame from the cameras to the recorder.

    `levels` has one of `good`, `warn` and `bad` for each camera. `rates` are the frames a second of each role, as
    `FrameRates` measures them.
    """
    level = max(levels, key=("good", "warn", "bad").index, default="unknown")
    if level == "bad" and "good" in levels:
        level = "warn"
    nodes = [Node("Cameras", level, f"{len(levels):,}", (frame_rate(frames_per_second, "frames"),))]
    for title, name in _WAY:
        mine = [role for role in roles if role.name.rstrip("0123456789").rstrip("-") == name]
        nodes.append(_node(title, mine, rates or {}))
    return nodes


def _node(title: str, roles: Sequence[RoleState], rates: Mapping[str, float]) -> Node:
    if not roles:
        return Node(title, "unknown", "–", ("not watched",))
    up = sum(1 for role in roles if role.is_well)
    backlogs = [role.backlog for role in roles if role.backlog is not None]
    restarts = sum(role.restarts for role in roles)
    details = [each for role in roles if not role.is_well for each in (role.sentence, role.detail) if each]
    measured = [rates[role.name] for role in roles if role.name in rates]
    details += [f"{sum(backlogs):,} waiting"] if backlogs else []
    details += [f"{restarts} restart{'' if restarts == 1 else 's'}"] if restarts else []
    states = "up" if up == len(roles) == 1 else f"{up} of {len(roles)} up" if len(roles) > 1 else roles[0].state
    value = frame_rate(sum(measured)) if measured and up else states
    details += [states] if value != states and len(roles) > 1 else []
    return Node(title, "good" if up == len(roles) else "warn" if up else "bad", value, tuple(details))


ReadRoles = Callable[[], Sequence[RoleState]]
"""Reads the current states of all roles. Blocks for at most about `NO_ANSWER_S`. Raises UserError if there are none."""


def unwell(roles: Sequence[RoleState]) -> str:
    """Return the roles that do not work, in one line; empty if all work."""
    found = [role for role in roles if not role.is_well]
    if not found:
        return ""
    return found[0].sentence + (f", {len(found) - 1} more roles not up" if len(found) > 1 else "")


def with_kafka(roles: Sequence[RoleState]) -> list[RoleState]:
    """Return the roles with the monitor's count of frames at Kafka, which has no metrics of its own."""
    counted = next((role.frames for role in roles if role.name == "monitor"), None)
    node = next((role.name for role in roles if role.name.startswith("kafka")), None)
    counts = {"monitor": None, node: counted}
    return [replace(role, frames=counts[role.name]) if role.name in counts else role for role in roles]


def from_series(answers: Mapping[str, Mapping[str, float]]) -> list[RoleState]:
    """Return the roles from the Prometheus series `up`, `backlog`, `restarts` and `frames`, each by role."""
    found = [
        RoleState(
            name,
            UP if value else "not answering",
            None,
            None,
            "" if value else "no response to Prometheus",
            int(answers["backlog"][name]) if name in answers["backlog"] else None,
            int(answers["restarts"].get(name, 0)),
            frames=answers.get("frames", {}).get(name),
        )
        for name, value in sorted(answers["up"].items())
    ]
    return with_kafka(found)
