"""The list of cameras that a fleet runs: the specification of each, and the reasons why others cannot run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from producers.camera.camera_settings import CameraSettings
from producers.publisher.link import Connection, Link
from producers.sources.source import Source
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey
from schemas.transport.access import Login, Tls


@dataclass(frozen=True)
class CameraSpec:
    """Everything that one camera needs to run. A camera is restarted when its new specification differs."""

    settings: CameraSettings
    key: CameraKey = field(compare=False)
    mqtt: tuple[str, int]
    tls: Tls | None = None
    login: Login | None = None
    stamp: Hashable = None
    """The version of the files behind the specification; a changed file gives another stamp."""
    phase_s: float = 0.0
    """Seconds from the start of its capture to its first frame."""
    wrap_source: Callable[[Source], Source] | None = field(default=None, compare=False)
    """A decorator of the camera's source, such as one that injects faults."""
    wrap_link: Callable[[Link], Connection] | None = field(default=None, compare=False)
    """A decorator of the camera's connection."""
    _key: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        # Keys are compared by their exported form.
        object.__setattr__(self, "_key", self.key.export())


@dataclass(frozen=True)
class CameraSpecs:
    """The cameras of a list: those that can run, and the reason for each that cannot."""

    runnable: Mapping[CameraId, CameraSpec] = field(default_factory=dict)
    rejected: Mapping[CameraId, str] = field(default_factory=dict)

    @property
    def secure(self) -> bool:
        """Whether any camera connects by TLS."""
        return any(spec.tls is not None for spec in self.runnable.values())


class CameraList(Protocol):
    """The source of a fleet's specifications. Both methods may be called from a thread."""

    def stamp(self) -> Hashable:
        """Return a cheap value that changes whenever `read` may return something else."""
        ...

    def read(self) -> CameraSpecs:
        """Return the current cameras; `ConfigError` when the list is invalid."""
        ...
