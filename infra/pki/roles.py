"""The roles of a fleet besides its cameras: their certificates, each in a folder for that role alone."""

from __future__ import annotations

import datetime
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from infra.pki.authority import (
    CRL_FILE,
    Authority,
    IssuedCertificate,
    common_name,
    general_name,
    generation,
    hosts_of,
    issued_days,
    life_days,
)
from infra.pki.mqtt_rights import mqtt_rights
from infra.pki.refusals import refused
from infra.pki.role_generations import GENERATIONS_FILE, role_generations
from infra.pki.serials import note_serial, serials
from infra.pki.validity import CERTIFICATE_DAYS, RENEWED_DAYS, ROLE_DAYS
from infra.state_folder import Layout, read_text
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import ConfigError, StateError
from schemas.runtime.atomic_file import write_durably
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls

SERVERS: Final = ("mosquitto", "kafka", "postgresql", "pages")
"""Roles with a server's certificate; `pages` is the console's, for browsers."""
CLIENTS: Final = (
    "bridge", "processor", "recorder", "console", "admin", "audit", "health", "monitor", "announcer", "homeassistant",
)  # fmt: skip
"""Roles with a client's certificate. `admin` makes topics, publishes models and commands cameras. `audit` reads.
`health` may connect, and nothing else. `monitor` measures the brokers. `announcer` announces cameras to
`homeassistant`, which subscribes to that."""
SHARE_FILE: Final = "bridges.share"
RIGHTS_FILE: Final = "mosquitto.acl"
KEYSTORE_FILE: Final = "keystore.pem"
"""Key and certificate in one file, in Kafka's format."""
_ROLE = re.compile(rf"({'|'.join((*SERVERS, *CLIENTS))})(-[0-9]{{1,4}})?")


def restart_note(renewed: Mapping[str, datetime.datetime]) -> str | None:
    """Return a line that names the renewed servers, and until when they may present the former certificates."""
    servers = {name: end for name, end in renewed.items() if kind_of(name) in SERVERS}
    if not servers:
        return None
    return (
        f"{', '.join(servers)}: the former certificate is presented until a restart, which has to come before "
        f"{min(servers.values()):%Y-%m-%d %H:%M} UTC"
    )


class Roles:
    """The certificates of roles from `authority`, in `roles/NAME/` of its folder: `ca.crt`, `tls.crt`, `tls.key`."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    def folder(self, name: str) -> Path:
        """Return the files of one role."""
        return role_folder(self.authority.folder, name)

    def issue(self, name: str, hosts: Sequence[str], days: float | None = None, *, keep_hosts: bool = True) -> None:
        """Issue a new certificate of the present generation for `name`; `hosts` are a server's names and addresses.

        With `keep_hosts`, a server keeps the hosts of its former certificate too, because clients may know it by each
        of them. A client's certificate is valid for `days`, by default as long as the former one, or as that of the
        role's first instance; a server's is valid longer. Raises ConfigError unless `name` is one of the roles, with a
        number behind it if there are several.
        """
        if not _ROLE.fullmatch(name):
            raise ConfigError(
                f"role: expected one of {', '.join((*SERVERS, *CLIENTS))}, or one with -NUMBER, got {name!r}. "
                "Correct it."
            )
        server = kind_of(name) in SERVERS
        # Kafka's nodes are clients of each other.
        client = not server or kind_of(name) == "kafka"
        with changing_identities(self.authority.folder.parent):
            former = self._certificate(name)
            known = dict.fromkeys((*hosts, *(hosts_of(former) if former is not None and keep_hosts else ())))
            issued = self.authority.issue(
                name,
                hosts=list(known) if server else (),
                client=client,
                days=CERTIFICATE_DAYS if server else self._days(name, former) if days is None else days,
                generation=self._generation(name),
            )
            note_serial(self.authority.folder, name, issued.serial)
            self._write(name, issued)

    def ensure(
        self,
        names: Iterable[str],
        hosts: Sequence[str],
        days: float | None = ROLE_DAYS,
        *,
        keep_hosts: bool = True,
    ) -> list[str]:
        """Issue certificates of `names` that are missing, end soon, lack a host, or are of an earlier generation.

        Revoked certificates, and those with a key of another one, are replaced too: a crash may have left them.
        Without `keep_hosts`, a server's certificate with other hosts than these is replaced. Certificates of another
        authority are replaced too, and clients' certificates with a validity much longer than `days`. Without `days`, a
        client's new certificate is valid as long as its former one. Returns the names of the new certificates.
        """
        with changing_identities(self.authority.folder.parent):
            revoked = self.authority.revoked()
            due = [name for name in names if not self._holds(name, hosts, days, keep_hosts, revoked)]
            for name in due:
                self.issue(name, hosts, days, keep_hosts=keep_hosts)
            self.write_rights()
        return due

    def renew(self, days: float | None = None) -> dict[str, datetime.datetime]:
        """Do the same for all roles that have a certificate, with their present hosts.

        Return the end of the former certificate of each renewed role, which servers present until they restart.
        """
        with changing_identities(self.authority.folder.parent):
            due = self.due(days)
            for name, former in due.items():
                self.issue(name, hosts_of(former), days)
            self.write_rights()
            return {name: former.not_valid_after_utc for name, former in due.items()}

    def due(self, days: float | None = None) -> dict[str, x509.Certificate]:
        """Return the certificates that `renew` would replace, by role."""
        found = {name: self._certificate(name) for name in self.names()}
        revoked = self.authority.revoked()
        return {
            name: each
            for name, each in found.items()
            if each and not self._holds(name, hosts_of(each), days, True, revoked)
        }

    def names(self) -> list[str]:
        """Return all roles with a certificate. Folders with other names, such as copies, are skipped."""
        return sorted(path.name for path in (self.authority.folder / "roles").iterdir() if _ROLE.fullmatch(path.name))

    def reissue(self, kind: str) -> list[str]:
        """Issue the certificates of all instances of a role again, with their validity; return their names."""
        found = [name for name in self.names() if kind_of(name) == kind]
        for name in found:
            self.issue(name, ())
        return found

    def numbers(self, name: str) -> set[int]:
        """Return the known serial numbers of a role's certificates: those recorded, and the one in its folder."""
        current = self.current(name)
        return {*serials(self.authority.folder, name), *([current] if current is not None else [])}

    def current(self, name: str) -> int | None:
        """Return the serial number of the certificate in a role's folder; None without one."""
        found = self._certificate(name)
        return found.serial_number if found is not None else None

    def _holds(
        self, name: str, hosts: Sequence[str], days: float | None, keep_hosts: bool, revoked: Collection[int]
    ) -> bool:
        found = self._certificate(name)
        if found is None or not self.authority.issued(found) or generation(found) != self._generation(name):
            return False
        if found.serial_number in revoked or not self._has_key_of(name, found):
            return False
        server = kind_of(name) in SERVERS
        if not server and days is not None and life_days(found) > 2 * days + RENEWED_DAYS:
            return False
        if server and not keep_hosts and set(map(general_name, hosts_of(found))) != set(map(general_name, hosts)):
            return False
        return self.authority.is_current(found, hosts if server else ())

    def _days(self, name: str, former: x509.Certificate | None) -> float:
        """Return the validity in days of a former certificate, or of that of the role's first instance.

        Without one of this authority, return ROLE_DAYS.
        """
        model = former or self._certificate(kind_of(name))
        return issued_days(model) if model is not None and self.authority.issued(model) else ROLE_DAYS

    def _generation(self, name: str) -> int:
        return role_generations(self.authority.folder).get(kind_of(name), 0)

    def write_rights(self) -> None:
        """Write mosquitto's rights, and the other files of each role next to its certificate.

        Mosquitto gets the revocation list. Roles with keys get the key generations, and bridges the name of their
        shared subscription.
        """
        with changing_identities(self.authority.folder.parent):
            self._write_rights()

    def _write_rights(self) -> None:
        pki = self.authority.folder
        if not self.authority.has_current_list():
            self.authority.revoke({})
        names = self.names()
        text = mqtt_rights(names, sorted(refused(pki)))
        generations = Layout(pki.parent).generations
        for name in names:
            match kind_of(name):
                case "mosquitto":
                    write_durably(self.folder(name) / RIGHTS_FILE, text)
                    self._copy_files(name, pki / CRL_FILE)
                case "bridge":
                    share_name(pki)  # a new one if the earlier one was deleted
                    self._copy_files(name, generations, pki / SHARE_FILE)
                case "processor" | "recorder" | "console":
                    self._copy_files(name, generations)
                case "admin":
                    self._copy_files(name, pki / GENERATIONS_FILE)

    def _copy_files(self, name: str, *files: Path) -> None:
        """Copy the existing ones of `files` to a role's folder."""
        for file in filter(Path.is_file, files):
            write_durably(self.folder(name) / file.name, read_text(file), private=file.name == SHARE_FILE)

    def let_group_read(self, names: Iterable[str]) -> None:
        """Let the files' group read the keys of `names`.

        This is for servers with users of their own, each with a volume that holds its folder and no other.
        """
        for name in names:
            for file in (KEY_FILE, KEYSTORE_FILE):
                if (self.folder(name) / file).exists():
                    (self.folder(name) / file).chmod(0o640)

    def _certificate(self, name: str) -> x509.Certificate | None:
        try:
            found = x509.load_pem_x509_certificate((self.folder(name) / CERTIFICATE_FILE).read_bytes())
        except (OSError, ValueError):
            return None
        return found if common_name(found) == name and (self.folder(name) / KEY_FILE).is_file() else None

    def _has_key_of(self, name: str, certificate: x509.Certificate) -> bool:
        """Return whether the role's key belongs to the certificate; True for a key that only a server's user reads."""
        try:
            key = load_pem_private_key((self.folder(name) / KEY_FILE).read_bytes(), None)
        except PermissionError:
            return True
        except (ValueError, TypeError):
            return False
        return key.public_key() == certificate.public_key()

    def _write(self, name: str, issued: IssuedCertificate) -> None:
        folder = self.folder(name)
        shared = (folder / KEY_FILE).exists() and (folder / KEY_FILE).stat().st_mode & stat.S_IRGRP
        write_durably(folder / KEY_FILE, issued.key, private=True)
        if kind_of(name) == "kafka":
            write_durably(folder / KEYSTORE_FILE, issued.key + issued.certificate, private=True)
        if shared:
            self.let_group_read([name])
        # The certificate comes last: a server reads all files again when it changes.
        for file, text in ((AUTHORITY_FILE, self.authority.pem), (CERTIFICATE_FILE, issued.certificate)):
            write_durably(folder / file, text)


def kind_of(name: str) -> str:
    """Return the role of an instance: `bridge` of `bridge-2`."""
    return name.partition("-")[0]


def role_folder(pki: Path, name: str) -> Path:
    """Return the files of the role `name` of the authority in `pki`."""
    return pki / "roles" / name


def rights_file(pki: Path) -> Path:
    """Return the path of mosquitto's list of rights."""
    return role_folder(pki, "mosquitto") / RIGHTS_FILE


def role_tls(pki: Path, name: str) -> Tls:
    """Return the TLS files of the role `name`; StateError when it has no certificate."""
    folder = role_folder(pki, name)
    if not (folder / CERTIFICATE_FILE).is_file():
        raise StateError(
            f"{folder}: expected a certificate of {name}, got none. Run `pointillist ca role {name} "
            f"{Layout(pki.parent).state_option}`."
        )
    return Tls.of_folder(folder)


def share_name(pki: Path) -> str:
    """Return the name of the bridges' shared subscription, made at the first call.

    Mosquitto 2.0 lets any client subscribe to anything and checks rights only at delivery. A client with this name
    could join the subscription, and its portion of the messages would be lost until they are sent again.
    """
    file = pki / SHARE_FILE
    if not file.exists():
        with changing_identities(pki.parent):
            if not file.exists():
                write_durably(file, f"bridges-{secrets.token_hex(16)}", private=True)
    return read_text(file).strip()
