"""The cameras of `cameras.yaml` with their identities: from enrolments, or issued by a system's state folder."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from infra.cameras.identity import CameraIdentity, camera_identity, issued_identity
from infra.state_folder import Layout
from producers.fleet.camera_file import ListedCamera, load_camera_file
from producers.fleet.camera_spec import CameraSpec, CameraSpecs
from schemas.errors import ConfigError, UserError
from schemas.identity import CameraId
from schemas.runtime.followed_file import FileVersion, file_version
from schemas.settings import address
from schemas.transport.access import Login, Tls


@dataclass(frozen=True)
class Share:
    """One of `of` processes that share a file's cameras. A camera's name alone decides its share."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read `1/3`; ConfigError names the form."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ConfigError(f"share: expected a share such as 1/3, got {text[:40]!r}. Correct it.")
        return cls(int(number), int(of))

    def has(self, camera: CameraId) -> bool:
        """Return whether a camera belongs to this share."""
        return int.from_bytes(blake2b(camera.encode(), digest_size=8).digest(), "big") % self.of == self.number - 1


def empty_shares(file: Path, of: int) -> set[int]:
    """Return the numbers of the shares of `file` that have no camera; none if it cannot be read."""
    try:
        listed = load_camera_file(file)
    except ConfigError:
        return set()
    return {number for number in range(1, of + 1) if not any(map(Share(number, of).has, listed))}


@dataclass(frozen=True)
class Broker:
    """The broker given next to the file; None when the enrolments name it."""

    mqtt: tuple[str, int] | None = None
    tls: Tls | None = None
    login: Login | None = None


class FileOfCameras:
    """A `CameraList` that reads `file`.

    A camera whose enrolment cannot be read is rejected, and the others run. After one enrolment of twenty has expired
    overnight, a restarted device still has nineteen cameras.

    With `allows_rates`, each camera that `state` issues may send as much as an attached one. Those of
    `up --cameras-file` need no limit of their own.
    """

    def __init__(
        self,
        file: Path,
        *,
        state: Path | None = None,
        broker: Broker | None = None,
        share: Share | None = None,
        allows_rates: bool = False,
    ) -> None:
        self._file = file
        self._allows_rates = allows_rates
        self._state = state
        self._broker = broker or Broker()
        self._share = share
        self._enrolments: tuple[Path, ...] = ()
        self.certificates: list[Path] = []
        """The certificates of the cameras that can run; `read` replaces its elements."""

    def stamp(self) -> Hashable:
        """Return the stamps of the file and of every place of an enrolment that it names."""
        return tuple(file_version(file) for file in (self._file, *self._enrolments))

    def read(self) -> CameraSpecs:
        """Return the wanted cameras; ConfigError names the fault in the file, and StateError one in the rates."""
        listed = load_camera_file(self._file)
        if self._share is not None:
            listed = {name: camera for name, camera in listed.items() if self._share.has(name)}
        self._enrolments = tuple(sorted({place for camera in listed.values() for place in camera.enrolment_places}))
        runnable: dict[CameraId, CameraSpec] = {}
        rejected: dict[CameraId, str] = {}
        for name, camera in listed.items():
            try:
                runnable[name] = self._spec(name, camera)
            except UserError as error:
                rejected[name] = str(error)
        own = [spec.tls.certificate for spec in runnable.values() if spec.tls is not None]
        self.certificates[:] = dict.fromkeys(file for file in own if file is not None)
        if self._state is not None and self._allows_rates:
            issued = [name for name in runnable if listed[name].enrolment is None]
            self._allow_rates(Layout(self._state.resolve()), issued)
        return CameraSpecs(runnable, rejected)

    def _spec(self, name: CameraId, camera: ListedCamera) -> CameraSpec:
        stamp: FileVersion = None
        if camera.enrolment is not None:
            stamp = file_version(
                camera.enrolment
            )  # stamped before reading: a change during the read is noticed at the next look
            known = camera_identity(name, camera.enrolment, None)
        elif self._state is not None:
            known = issued_identity(Layout(self._state.resolve()), name)
        else:
            raise ConfigError(
                "enrolment is missing: expected `enrolments`, a folder, in the file of cameras, or --state DIR. "
                "Give one of them."
            )
        broker = self._broker
        return CameraSpec(camera.settings, known.key, self._place(known), known.tls or broker.tls, broker.login, stamp)

    def _allow_rates(self, layout: Layout, cameras: list[CameraId]) -> None:
        """Give `cameras` limits of their own, unless the run of the state folder reads this file."""
        if layout.cameras_file == self._file:
            return
        from infra.cameras.rates import allow_rate  # not on a device: it needs the bridge's libraries

        for name in cameras:
            allow_rate(layout, name)

    def _place(self, known: CameraIdentity) -> tuple[str, int]:
        if self._broker.mqtt is not None:
            return self._broker.mqtt
        if known.mqtt is None:
            raise ConfigError("broker is missing: expected its address in the enrolment. Give --mqtt host:port.")
        return address(known.mqtt)
