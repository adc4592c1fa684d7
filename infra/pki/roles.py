"""The roles of a fleet beside its cameras: their certificates, each in a folder that one role alone is given."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from infra.layout import Layout
from infra.pki.authority import (
    CRL_FILE,
    Authority,
    Issued,
    common_name,
    good_for,
    write_private,
    write_public,
)
from infra.pki.mqtt_rights import mqtt_rights
from infra.pki.refusals import refused
from schemas.errors import ConfigError, StateError
from schemas.runtime.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls

SERVERS: Final = ("mosquitto", "kafka", "postgresql")
CLIENTS: Final = (
    "bridge", "processor", "recorder", "console", "admin", "audit", "health", "monitor", "announcer", "homeassistant",
)  # fmt: skip
"""`admin` makes topics, publishes models and tells cameras; `audit` reads; `health` may connect, and nothing else;
`monitor` sees how the brokers are; `announcer` tells `homeassistant` of cameras, the one who listens to that."""
SHARE_FILE: Final = "bridges.share"
RIGHTS_FILE: Final = "mosquitto.acl"
KEYSTORE_FILE: Final = "keystore.pem"
"""Key and certificate in one file, as Kafka reads them."""
RENEWED_DAYS: Final = 30.0
"""A certificate that ends sooner is issued anew at a start."""
_ROLE = re.compile(rf"({'|'.join((*SERVERS, *CLIENTS))})(-[0-9]{{1,4}})?")


class Roles:
    """What `authority` has issued to roles: `roles/NAME/` in its folder, with `ca.crt`, `tls.crt` and `tls.key`."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority

    def folder(self, name: str) -> Path:
        """The files of one role."""
        return role_folder(self.authority.folder, name)

    def issue(self, name: str, hosts: Sequence[str]) -> None:
        """Give `name` a new certificate; `hosts` are what servers are reached by.

        Raises ConfigError unless `name` is one of the roles, with a number behind it where there are several.
        """
        if not _ROLE.fullmatch(name):
            raise ConfigError(
                f"expected a role of {', '.join((*SERVERS, *CLIENTS))}, or one with -NUMBER; got {name!r}"
            )
        server = name.partition("-")[0] in SERVERS
        # Kafka's nodes are clients of each other.
        client = not server or name.partition("-")[0] == "kafka"
        issued = self.authority.issue(name, hosts=hosts if server else (), client=client)
        self._write(name, issued)

    def ensure(self, names: Iterable[str], hosts: Sequence[str]) -> None:
        """Issue those of `names` that are missing, end soon, are of another authority, or lack one of the `hosts`."""
        for name in names:
            server = name.partition("-")[0] in SERVERS
            found = self._certificate(name)
            wanted = hosts if server else ()
            if found is None or not self.authority.issued(found) or not good_for(found, wanted, RENEWED_DAYS):
                self.issue(name, hosts)
        self.write_rights()

    def write_rights(self) -> None:
        """The rights that mosquitto reads, and beside each certificate what else its role is given.

        Of revoked certificates mosquitto is told, of revoked keys the roles that have keys; bridges of their share.
        """
        pki = self.authority.folder
        names = sorted(path.name for path in (pki / "roles").iterdir())
        text = mqtt_rights(names, sorted(refused(pki)))
        generations = Layout(pki.parent).generations
        for name in names:
            match name.partition("-")[0]:
                case "mosquitto":
                    write_public(self.folder(name) / RIGHTS_FILE, text)
                    self._hand(name, pki / CRL_FILE)
                case "bridge":
                    self._hand(name, generations, pki / SHARE_FILE)
                case "processor" | "recorder" | "console":
                    self._hand(name, generations)

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
        write_private(folder / KEY_FILE, issued.key)
        if name.partition("-")[0] == "kafka":
            write_private(folder / KEYSTORE_FILE, issued.key + issued.certificate)
        for file, text in ((CERTIFICATE_FILE, issued.certificate), (AUTHORITY_FILE, self.authority.pem)):
            write_public(folder / file, text)


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
        write_private(file, f"bridges-{secrets.token_hex(16)}")
    return file.read_text().strip()
