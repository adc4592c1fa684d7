"""The roles of a fleet beside its cameras: their certificates, each in a folder that one role alone is given."""

from __future__ import annotations

import re
import secrets
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from infra.identity_lock import changing_identities
from infra.layout import Layout
from infra.pki.authority import (
    CERTIFICATE_DAYS,
    CRL_FILE,
    Authority,
    Issued,
    common_name,
    generation,
    good_for,
    hosts_of,
    write_private,
    write_public,
)
from infra.pki.mqtt_rights import mqtt_rights
from infra.pki.refusals import refused
from infra.pki.role_generations import GENERATIONS_FILE, role_generations
from infra.pki.serials import note_serial, serials
from schemas.errors import ConfigError, StateError
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls

SERVERS: Final = ("mosquitto", "kafka", "postgresql", "pages")
"""`pages` is the console's, for browsers."""
CLIENTS: Final = (
    "bridge", "processor", "recorder", "console", "admin", "audit", "health", "monitor", "announcer", "homeassistant",
)  # fmt: skip
"""`admin` makes topics, publishes models and tells cameras; `audit` reads; `health` may connect, and nothing else;
`monitor` sees how the brokers are; `announcer` tells `homeassistant` of cameras, the one who listens to that."""
SHARE_FILE: Final = "bridges.share"
RIGHTS_FILE: Final = "mosquitto.acl"
KEYSTORE_FILE: Final = "keystore.pem"
"""Key and certificate in one file, as Kafka reads them."""
ROLE_DAYS: Final = 14.0
"""Validity of a client's certificate: Kafka reads no list of revoked ones, so that a copy must end by itself."""
RENEWED_DAYS: Final = 30.0
"""A certificate is renewed this long before its end, or at half of its life if that is later."""
_ROLE = re.compile(rf"({'|'.join((*SERVERS, *CLIENTS))})(-[0-9]{{1,4}})?")


class Roles:
    """What `authority` has issued to roles: `roles/NAME/` in its folder, with `ca.crt`, `tls.crt` and `tls.key`."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    def folder(self, name: str) -> Path:
        """The files of one role."""
        return role_folder(self.authority.folder, name)

    def issue(self, name: str, hosts: Sequence[str], days: float = ROLE_DAYS) -> None:
        """Give `name` a new certificate of its present generation; `hosts` are what servers are reached by.

        A client's holds for `days`, a server's longer. Raises ConfigError unless `name` is one of the roles, with a
        number behind it where there are several.
        """
        if not _ROLE.fullmatch(name):
            raise ConfigError(
                f"expected a role of {', '.join((*SERVERS, *CLIENTS))}, or one with -NUMBER; got {name!r}"
            )
        server = kind_of(name) in SERVERS
        # Kafka's nodes are clients of each other.
        client = not server or kind_of(name) == "kafka"
        with changing_identities(self.authority.folder.parent):
            issued = self.authority.issue(
                name,
                hosts=hosts if server else (),
                client=client,
                days=CERTIFICATE_DAYS if server else days,
                generation=self._generation(name),
            )
            note_serial(self.authority.folder, name, issued.serial)
            self._write(name, issued)

    def ensure(self, names: Iterable[str], hosts: Sequence[str], days: float = ROLE_DAYS) -> list[str]:
        """Issue those of `names` that are missing, end soon, are of another authority or generation, or lack a host.

        A client's certificate that holds much longer than `days` is replaced too. The names that were issued.
        """
        with changing_identities(self.authority.folder.parent):
            due = [name for name in names if not self._holds(name, hosts, days)]
            for name in due:
                # A name that a server was given by hand stays.
                former = self._certificate(name)
                self.issue(name, list(dict.fromkeys((*hosts, *(hosts_of(former) if former else ())))), days)
            self.write_rights()
        return due

    def renew(self, days: float = ROLE_DAYS) -> list[str]:
        """Do the same for all roles that have a certificate, with the hosts that it names already."""
        with changing_identities(self.authority.folder.parent):
            found = {name: self._certificate(name) for name in self.names()}
            return [
                name
                for name, certificate in found.items()
                if certificate is not None and self.ensure([name], hosts_of(certificate), days)
            ]

    def names(self) -> list[str]:
        """All roles that were given a certificate."""
        return sorted(path.name for path in (self.authority.folder / "roles").iterdir())

    def reissue(self, kind: str, days: float = ROLE_DAYS) -> list[str]:
        """Issue the certificates of all instances of a role again; their names."""
        found = [name for name in self.names() if kind_of(name) == kind]
        for name in found:
            certificate = self._certificate(name)
            self.issue(name, hosts_of(certificate) if certificate is not None else (), days)
        return found

    def numbers(self, name: str) -> set[int]:
        """The serial numbers of all certificates of a role that are known: noted, or in its folder."""
        current = self.current(name)
        return {*serials(self.authority.folder, name), *([current] if current is not None else [])}

    def current(self, name: str) -> int | None:
        """The serial number of the certificate in a role's folder; None without one."""
        found = self._certificate(name)
        return found.serial_number if found is not None else None

    def _holds(self, name: str, hosts: Sequence[str], days: float) -> bool:
        found = self._certificate(name)
        if found is None or not self.authority.issued(found) or generation(found) != self._generation(name):
            return False
        server = kind_of(name) in SERVERS
        life = (found.not_valid_after_utc - found.not_valid_before_utc).total_seconds() / 86_400
        if not server and life > 2 * days + RENEWED_DAYS:
            return False
        return good_for(found, hosts if server else (), min(RENEWED_DAYS, life / 2))

    def _generation(self, name: str) -> int:
        return role_generations(self.authority.folder).get(kind_of(name), 0)

    def write_rights(self) -> None:
        """The rights that mosquitto reads, and beside each certificate what else its role is given.

        Of revoked certificates mosquitto is told, of revoked keys the roles that have keys; bridges of their share.
        """
        with changing_identities(self.authority.folder.parent):
            self._write_rights()

    def _write_rights(self) -> None:
        pki = self.authority.folder
        names = self.names()
        text = mqtt_rights(names, sorted(refused(pki)))
        generations = Layout(pki.parent).generations
        for name in names:
            match kind_of(name):
                case "mosquitto":
                    write_public(self.folder(name) / RIGHTS_FILE, text)
                    self._hand(name, pki / CRL_FILE)
                case "bridge":
                    self._hand(name, generations, pki / SHARE_FILE)
                case "processor" | "recorder" | "console":
                    self._hand(name, generations)
                case "admin":
                    self._hand(name, pki / GENERATIONS_FILE)

    def _hand(self, name: str, *files: Path) -> None:
        """Give a role a copy of those `files` that there are."""
        for file in filter(Path.is_file, files):
            write = write_private if file.name == SHARE_FILE else write_public
            write(self.folder(name) / file.name, file.read_text())

    def let_group_read(self, names: Iterable[str]) -> None:
        """Let the files' group read the keys of `names`: for servers that run as users of their own, each with a volume
        that holds its folder and no other."""
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

    def _write(self, name: str, issued: Issued) -> None:
        folder = self.folder(name)
        shared = (folder / KEY_FILE).exists() and (folder / KEY_FILE).stat().st_mode & stat.S_IRGRP
        write_private(folder / KEY_FILE, issued.key)
        if kind_of(name) == "kafka":
            write_private(folder / KEYSTORE_FILE, issued.key + issued.certificate)
        for file, text in ((CERTIFICATE_FILE, issued.certificate), (AUTHORITY_FILE, self.authority.pem)):
            write_public(folder / file, text)
        if shared:
            self.let_group_read([name])


def kind_of(name: str) -> str:
    """The role of an instance: `bridge` of `bridge-2`."""
    return name.partition("-")[0]


def role_folder(pki: Path, name: str) -> Path:
    """The files of the role `name` of the authority in `pki`."""
    return pki / "roles" / name


def rights_file(pki: Path) -> Path:
    """Mosquitto's list of rights."""
    return role_folder(pki, "mosquitto") / RIGHTS_FILE


def role_tls(pki: Path, name: str) -> Tls:
    """How the role `name` connects; StateError when it has been given no certificate."""
    folder = role_folder(pki, name)
    if not (folder / CERTIFICATE_FILE).is_file():
        raise StateError(f"expected a certificate of {name} in {folder}: `pointillist ca role {name}` issues one")
    return Tls.of_folder(folder)


def share_name(pki: Path) -> str:
    """The name of the bridges' share of the frames, made at the first call.

    Mosquitto 2.0 lets any client subscribe to anything and asks for rights only when a message is delivered: who knew
    this name could join, and what fell to it would be lost until it is sent again.
    """
    file = pki / SHARE_FILE
    if not file.exists():
        with changing_identities(pki.parent):
            if not file.exists():
                write_private(file, f"bridges-{secrets.token_hex(16)}")
    return file.read_text().strip()
