"""What a roster is told: its cameras with all that each needs, and which of them cannot run, and why."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from producers.scenario import CameraSettings
from schemas.identity import CameraId
from schemas.keys import CameraKey
from schemas.transport.access import Login, Tls


@dataclass(frozen=True)
class Member:
    """One camera. Two that are equal need no restart."""

    settings: CameraSettings
    key: CameraKey = field(compare=False)
    mqtt: tuple[str, int]
    tls: Tls | None = None
    login: Login | None = None
    stamp: Hashable = None
    """Of the files that were read for it: another one says that they have changed."""
    _key: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        # Two keys are the same when what they export is.
        object.__setattr__(self, "_key", self.key.export())


@dataclass(frozen=True)
class Wanted:
    """Who is to run, and who would be but for the reason that is given."""

    members: Mapping[CameraId, Member] = field(default_factory=dict)
    refused: Mapping[CameraId, str] = field(default_factory=dict)


class CameraList(Protocol):
    """Where a roster reads who is wanted. Both may be called from a thread."""

    def stamp(self) -> Hashable:
        """What is another value once `read` may say something else; it costs little."""
        ...

    def read(self) -> Wanted:
        """Who is wanted now; `ConfigError` when that cannot be said."""
        ...
