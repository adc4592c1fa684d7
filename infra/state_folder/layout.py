"""Paths of the files in a state folder."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from infra.settings.variable import resolve
from infra.state_folder.environment import accepted_generations, parse_fleet_secret
from infra.state_folder.identity_lock import changing_identities
from producers.spool.folder import spool_root
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, derive_camera_key
from schemas.keys.roots import Role, Roots
from schemas.keys.signers import Signer
from schemas.limits import USUAL_FRAME_PIXELS
from schemas.runtime.atomic_file import write_durably
from schemas.runtime.json_files import read_json

KAFKA_NODES: Final = "kafka-nodes.json"
"""The file about the disks of several Kafka nodes, written by `infra.local.kafka_quorum`."""


@dataclass(frozen=True)
class Layout:
    """The state folder of one local system."""

    folder: Path

    @property
    def state_option(self) -> str:
        """The option of commands on this folder, for a shell; printed commands carry it."""
        return f"--state {shlex.quote(str(self.folder.resolve()))}"

    @property
    def database(self) -> Path:
        """The recorder's SQLite file."""
        return self.folder / "pointillist.sqlite"

    @property
    def database_url(self) -> str:
        """The same as an SQLAlchemy URL."""
        return _sqlite_url(self.database)

    @property
    def console_database(self) -> Path:
        """The SQLite file of the console's own database."""
        return self.folder / "console.sqlite"

    @property
    def console_url(self) -> str:
        """The same as an SQLAlchemy URL."""
        return _sqlite_url(self.console_database)

    @property
    def console_store(self) -> str:
        """The URL of the console's own database in the last run of `up`: `console_url`, unless a setting named one.

        For a setting env:NAME, it is the value of that variable here; without the variable, the setting itself.
        """
        return resolve(self._console_option("store")) or self.console_url

    @property
    def kept_files(self) -> str:
        """The folder or URL of the console's own files in the last run of `up`: the quarantine, unless a setting named
        another."""
        return self._console_option("kept_files") or str(self.quarantine)

    def _console_option(self, name: str) -> str:
        console = self._options().get("console")
        found = console.get(name) if isinstance(console, dict) else None
        return found if isinstance(found, str) else ""

    @property
    def users(self) -> Path:
        """The users who may log in to the console."""
        return self.folder / "users"

    @property
    def tokens(self) -> Path:
        """The API tokens of programs, as hashes."""
        return self.folder / "tokens"

    @property
    def owner_token(self) -> Path:
        """The token of the user who runs the console, new at each start, readable by that user only."""
        return self.folder / "owner.token"

    @property
    def spool(self) -> Path:
        """One folder for each site, with one for each camera in it."""
        return spool_root(self.folder)

    @property
    def quarantine(self) -> Path:
        """Flagged frames."""
        return self.folder / "quarantine"

    @property
    def models(self) -> Path:
        """Published bundles, each in a folder named by its content."""
        return self.folder / "models"

    @property
    def model_cache(self) -> Path:
        """The copies that the processors of this machine have loaded."""
        return self.folder / "cache" / "models"

    @property
    def jobs(self) -> Path:
        """Inputs and outputs of the console's jobs: clean pictures, bundles, a folder for each job."""
        return self.folder / "jobs"

    @property
    def kafka_data(self) -> Path:
        """The partitions of a one-node Kafka; `infra.local.kafka_quorum.kafka_data` also covers several nodes."""
        return self.folder / "kafka" / "data"

    @property
    def secret_file(self) -> Path:
        """The fleet secret, readable by its owner only."""
        return self.folder / "fleet.secret"

    @property
    def roles(self) -> Path:
        """The share of the fleet secret that each role holds, in a folder of its own."""
        return self.folder / "roles"

    @property
    def signer_file(self) -> Path:
        """The private key that signs models published from this folder, readable by its owner only."""
        return self.folder / "signer.key"

    @property
    def decider_file(self) -> Path:
        """The private key that signs the gate's assessments of candidates, readable by its owner only."""
        return self.folder / "decider.key"

    @property
    def trusted(self) -> Path:
        """The signers whose published models this system's processors serve."""
        return self.folder / "trusted-signers"

    @property
    def keys(self) -> Path:
        """The camera keys of the simulated fleet."""
        return self.folder / "keys"

    @property
    def generations(self) -> Path:
        """Lowest accepted key generation by camera, unless it is zero."""
        return self.folder / "generations.json"

    @property
    def camera_rates(self) -> Path:
        """Limits, in MiB a second, that bridges apply to cameras outside the scenario."""
        return self.folder / "camera-rates.json"

    def role_settings(self, name: str) -> Path:
        """Return the TOML file with the settings of a role that `up` runs, readable by its owner only."""
        return self.folder / "settings" / f"{name}.toml"

    @property
    def pki(self) -> Path:
        """The fleet's authority, and the certificates that it has issued."""
        return self.folder / "pki"

    @property
    def plain(self) -> bool:
        """Whether the brokers of the last run accepted every client."""
        return bool(self._options().get("plain", False))

    @property
    def max_frame_pixels(self) -> int:
        """The most pixels of a frame that the processors of the last run accept."""
        processor = self._options().get("processor")
        found = processor.get("max_frame_pixels") if isinstance(processor, dict) else None
        return found if isinstance(found, int) else USUAL_FRAME_PIXELS

    @property
    def cameras_file(self) -> Path | None:
        """The list of cameras of the last run; None if it had none."""
        found = self._options().get("cameras_file")
        return Path(found) if isinstance(found, str) else None

    @property
    def listen(self) -> str | None:
        """The address of the last run's listener for other machines, `ADDRESS[:PORT]`; None if it had none."""
        found = self._options().get("listen")
        return found if isinstance(found, str) else None

    @property
    def bundle(self) -> Path | None:
        """The bundle of the last run's `up`; None before the first run."""
        found = self._last_run().get("bundle")
        return Path(found) if isinstance(found, str) else None

    @property
    def started_ms(self) -> int | None:
        """The start of the last run, in milliseconds since 1970; None before the first run."""
        found = self._last_run().get("started_ms")
        return found if isinstance(found, int) else None

    @property
    def added_cameras(self) -> list[str]:
        """The cameras that were added to the list during the last run; some may have been removed again."""
        found = self._last_run().get("added_cameras")
        return [str(name) for name in found] if isinstance(found, list) else []

    def _options(self) -> dict[str, object]:
        options = self._last_run().get("options", {})
        return options if isinstance(options, dict) else {}

    def _last_run(self) -> dict[str, object]:
        return read_json(self.run)

    @property
    def secure(self) -> bool:
        """Whether the brokers of this system accept only clients with a certificate of the authority."""
        return self.pki.is_dir() and not self.plain

    def enrolment(self, camera_id: CameraId) -> Path:
        """Return the enrolment of a camera that runs on this machine."""
        return self.folder / "enrolments" / f"{camera_id}.enrolment"

    @property
    def scenario(self) -> Path:
        """The scenario that the fleet runs."""
        return self.folder / "scenario.yaml"

    @property
    def report(self) -> Path:
        """The report of the last run, unless `up --report` named another file."""
        return self.folder / "report.json"

    @property
    def run(self) -> Path:
        """The settings of the last run."""
        return self.folder / "run.json"

    def log(self, role: str) -> Path:
        """Return the log of one of our roles."""
        return self.folder / "logs" / f"{role}.log"

    def key_file(self, camera_id: CameraId) -> Path:
        """Return the key of one camera."""
        return self.keys / f"{camera_id}.key"

    def fleet_secret(self, given: bytes | None = None) -> bytes:
        """Return the fleet secret; the first call writes it: the `given` one, or a new one."""
        if not self.secret_file.exists():
            with changing_identities(self.folder):
                if not self.secret_file.exists():
                    write_secret(self.secret_file, (given or secrets.token_bytes(32)).hex())
        return parse_fleet_secret(read_text(self.secret_file).strip())

    def roots(self, role: Role) -> Roots | None:
        """Return the root keys of a role: from its own file, else from the fleet secret; None when there is neither."""
        file = role_file(self.roles, role)
        if file.is_file():
            return Roots.from_export(read_text(file), role)
        return Roots.of_fleet(self.fleet_secret()).of(role) if self.secret_file.is_file() else None

    def signer(self) -> Signer:
        """Return this folder's own signer; the first call creates it and makes it trusted."""
        if not self.signer_file.exists():
            with changing_identities(self.folder):
                if not self.signer_file.exists():
                    signer = Signer.new()
                    # Trusted first: after an interruption, an untrusted signer would stay untrusted.
                    self.trust(signer, "own")
                    write_secret(self.signer_file, signer.export().rstrip())
        return Signer.read(self.signer_file)

    def decider(self) -> Signer:
        """Return the signer of this folder's gate, which decides on candidates and is trusted for nothing else."""
        if not self.decider_file.exists():
            with changing_identities(self.folder):
                if not self.decider_file.exists():
                    write_secret(self.decider_file, Signer.new().export().rstrip())
        return Signer.read(self.decider_file)

    def trust(self, signer: Signer, name: str) -> None:
        """Add a signer to those that are trusted here."""
        with changing_identities(self.folder):
            before = self.trusted.read_text() if self.trusted.exists() else ""
            if before and not before.endswith("\n"):  # an editor may leave the last line open
                before += "\n"
            write_durably(self.trusted, f"{before}{signer.line(name)}\n")

    def accepted_generations(self) -> dict[str, int]:
        """Return the lowest accepted key generation of each camera that is not at zero; empty without the file."""
        return accepted_generations(self.generations if self.generations.is_file() else None)

    def issue_key(self, camera_id: CameraId, generation: int = 0, secret: bytes | None = None) -> None:
        """Write a camera's key where the fleet reads it, unless a key of that generation or later is there."""
        file = self.key_file(camera_id)
        secret = secret or self.fleet_secret()
        with changing_identities(self.folder):
            with suppress(FileNotFoundError, SecretError):  # damaged, or of an earlier release with another form
                if CameraKey.from_export(camera_id, read_text(file)).generation >= generation:
                    return
            write_secret(file, derive_camera_key(secret, camera_id, generation).export())

    def camera_key(self, camera_id: CameraId) -> CameraKey:
        """Return the key that was issued to a camera."""
        return CameraKey.from_export(camera_id, read_text(self.key_file(camera_id)))


def role_file(folder: Path, role: Role) -> Path:
    """Return the path of a role's secret: with one folder for each role, a volume can hold that folder alone."""
    return folder / role / "role.secret"


def issue_role_secrets(folder: Path, fleet_secret: bytes) -> None:
    """Write the secret of each role of a running system."""
    roots = Roots.of_fleet(fleet_secret)
    for role in (Role.BRIDGE, Role.PROCESSOR, Role.RECORDER, Role.AUDITOR, Role.CONSOLE):
        write_secret(role_file(folder, role), roots.of(role).export())


def check_named(path: Path) -> None:
    """Raise ConfigError for `-`, which stands for standard input or output in other programs."""
    if str(path) == "-":
        raise ConfigError("-: expected the name of a file, got the sign of standard input or output. Choose a file.")


def regular_file(path: Path) -> Path:
    """Return the path behind all symbolic links. Raises ConfigError for something other than a regular file or none,
    also for `-`.
    """
    check_named(path)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: expected a regular file, got a folder, a device or a pipe. Choose another file.")
    return Path(os.path.realpath(path))


@contextmanager
def writing(option: str, file: Path) -> Iterator[None]:
    """Raise ConfigError about the file of an option in place of an OSError of the block, which writes it."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option}: expected a writable file, got {file}: {error.strerror or error}. Choose another file."
        ) from None


def write_report(option: str, file: Path, document: Mapping[str, Any]) -> None:
    """Write a report as JSON to the file of an option. Raises ConfigError when that is impossible."""
    check_named(file)
    with writing(option, file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_text(file: Path) -> str:
    """Return the text of a file of identities. Raises OSError, and SecretError if it is damaged, without quoting it."""
    try:
        return file.read_text()
    except ValueError:
        raise SecretError(f"{file}: expected text, got a file that is not text. Restore the file.") from None


def write_secret(path: Path, text: str) -> None:
    """Write `text` and a newline to a file that only its owner can read. The target of a symbolic link is written.

    Raises OSError, and ConfigError for a folder, a device or a pipe.
    """
    write_durably(regular_file(path), text + "\n", private=True)


def _sqlite_url(file: Path) -> str:
    """Return the SQLAlchemy URL of a file. SQLAlchemy decodes it, so that a folder `a%20b` or `a?b` is itself."""
    return f"sqlite:///{quote(str(file))}"
