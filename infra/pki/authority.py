"""A fleet's own certificate authority: a folder that issues certificates, and revokes them."""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.pki.validity import CERTIFICATE_DAYS, RENEWED_DAYS
from infra.state_folder import Layout
from infra.state_folder.identity_lock import changing_identities
from schemas.errors import ConfigError, StateError
from schemas.runtime.atomic_file import write_durably
from schemas.runtime.json_files import read_object, write_json
from schemas.transport.access import AUTHORITY_FILE

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
AUTHORITY_DAYS: Final = 20 * 365
CRL_FILE: Final = "crl.pem"
CRL_DAYS: Final = AUTHORITY_DAYS
"""Validity of a revocation list. An expired list would reject every client: each revocation makes a new one instead."""
_BACKDATED = datetime.timedelta(days=1)
"""Allowance for clock differences between devices."""
_CRL_BACKDATED = datetime.timedelta(days=30)
"""Backdating of revocation lists: OpenSSL prefers the list with the later second. Each list takes a second of this
time. A burst of revocations therefore never dates a list in the future, which would reject every client."""
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z)(\*\.{_LABEL}\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate and its private key, both in PEM."""

    certificate: str
    key: str

    @property
    def serial(self) -> int:
        """The certificate's serial number."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).serial_number


class Authority:
    """The authority in `folder`: `ca.crt`, `ca.key`, `crl.pem`, and `revoked.json` with the owner of each number."""

    def __init__(self, folder: Path) -> None:
        """Open it; StateError when there is none, or its files do not belong together."""
        self.folder = folder
        try:
            self.certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_FILE).read_bytes())
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except OSError as error:
            raise StateError(
                f"{folder}: expected a fleet's authority, got {error.strerror}. Run `pointillist ca init "
                f"{Layout(folder.parent).state_option}`."
            ) from None
        except ValueError:
            raise StateError(
                f"{folder}: expected ca.crt and ca.key in PEM, got another form. Restore the files."
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise StateError(
                f"{folder / 'ca.key'}: expected the key of {AUTHORITY_FILE}, got another. Restore the files."
            )
        self._key = key

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """Create an authority with a unique number in its name, to distinguish fleets; StateError when there is one."""
        with changing_identities(folder.parent):
            return cls._create(folder)

    @classmethod
    def _create(cls, folder: Path) -> Authority:
        if (folder / AUTHORITY_FILE).exists():
            raise StateError(
                f"{folder}: expected no authority, got an existing one, whose certificates would become "
                "worthless. Choose another folder, or complete this one by `pointillist ca init --keep "
                f"{Layout(folder.parent).state_option}`."
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Pointillist fleet {secrets.token_hex(4)}")
        certificate = (
            _builder(name, name, key.public_key(), key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_durably(folder / "ca.key", _pem(key), private=True)
        write_durably(folder / AUTHORITY_FILE, certificate.public_bytes(Encoding.PEM).decode())
        authority = cls(folder)
        authority.revoke({})
        return authority

    @property
    def fleet(self) -> str:
        """The authority's name: `Pointillist fleet 1a2b3c4d`."""
        return common_name(self.certificate)

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = (),
        client: bool = True,
        days: float = CERTIFICATE_DAYS,
        generation: int = 0,
    ) -> IssuedCertificate:
        """Issue a certificate for `name`, of a server with `hosts` as its names and addresses, of a client, or of both.

        A `generation` above zero stands in the subject as its organizational unit.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] * bool(hosts) + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = (
            _builder(_name(name, generation), self.certificate.subject, key.public_key(), self._key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return IssuedCertificate(certificate.public_bytes(Encoding.PEM).decode(), _pem(key))

    def issued(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority has issued the certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def is_ahead(self, dated: datetime.datetime) -> bool:
        """Return whether the date of a certificate or list is in the future: the clock was wrong at its issue.

        False while this machine's clock is not set, that is, before the authority's own date.
        """
        return self.certificate.not_valid_before_utc <= datetime.datetime.now(datetime.UTC) < dated

    def check_validity(self) -> None:
        """Raise StateError unless the authority's own certificate is valid now: no connection would be accepted."""
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if not begin <= datetime.datetime.now(datetime.UTC) <= end:
            raise StateError(
                f"{self.folder / AUTHORITY_FILE}: expected an authority that is valid now, got one valid from "
                f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC. Correct this machine's clock. If it is right, "
                f"it was wrong when the authority was made: move {self.folder} away, start again, and enrol the "
                "cameras of other machines again."
            )

    def is_current(self, certificate: x509.Certificate, hosts: Iterable[str] = ()) -> bool:
        """Return whether a certificate names all `hosts`, is not due for renewal, and is not dated in the future."""
        days = min(RENEWED_DAYS, life_days(certificate) / 2)
        return good_for(certificate, hosts, days) and not self.is_ahead(certificate.not_valid_before_utc)

    @property
    def _revoked_file(self) -> Path:
        return self.folder / "revoked.json"

    def revoked(self) -> dict[int, str]:
        """Return the numbers of revoked certificates, with the owner of each."""
        return read_object(self._revoked_file, "JSON", _owners)

    def revoke(self, serials: dict[int, str]) -> None:
        """Add `serials` to the list of revoked certificates, signed again for the servers that read it."""
        with changing_identities(self.folder.parent):
            gone = self.revoked() | serials
            signed = self._revocation_list(gone)
            write_json(self._revoked_file, {f"{serial:x}": name for serial, name in gone.items()}, durably=True)
            write_durably(self.folder / CRL_FILE, signed.public_bytes(Encoding.PEM).decode())

    def on_list(self) -> set[int]:
        """Return the serial numbers on the list that servers read; empty when there is none."""
        try:
            found = x509.load_pem_x509_crl((self.folder / CRL_FILE).read_bytes())
        except FileNotFoundError:
            return set()
        return {entry.serial_number for entry in found}

    def has_current_list(self) -> bool:
        """Return whether servers accept the revocation list now, and it has the numbers of all revoked certificates.

        False for a list that is missing, damaged, of another authority or dated in the future: it would reject every
        client, or accept a revoked one.
        """
        try:
            found = x509.load_pem_x509_crl((self.folder / CRL_FILE).read_bytes())
            signed = found.is_signature_valid(self._key.public_key())
            listed = {entry.serial_number for entry in found}
        except (FileNotFoundError, ValueError):
            return False
        return signed and not self.is_ahead(found.last_update_utc) and self.revoked().keys() <= listed

    def _revocation_list(self, serials: Iterable[int]) -> x509.CertificateRevocationList:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        at = now - _CRL_BACKDATED
        with suppress(FileNotFoundError, ValueError):  # a damaged list is made again, from `revoked.json`
            before = x509.load_pem_x509_crl((self.folder / CRL_FILE).read_bytes()).last_update_utc
            if not self.is_ahead(before):  # OpenSSL ignores a list of a later date
                at = max(at, before + datetime.timedelta(seconds=1))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at)
            .next_update(max(now, at) + datetime.timedelta(days=CRL_DAYS))
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256())


def common_name(certificate: x509.Certificate) -> str:
    """Return the owner of a certificate."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def generation(certificate: x509.Certificate) -> int:
    """Return the generation of a role's certificate."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return int(str(found[0].value)) if found else 0


def good_for(certificate: x509.Certificate, hosts: Iterable[str], days: float) -> bool:
    """Return whether a certificate names all `hosts` and is valid for `days` more."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return left > datetime.timedelta(days=days) and {general_name(host) for host in hosts} <= set(names)


def _owners(found: dict[str, Any]) -> dict[int, str]:
    return {int(serial, 16): str(name) for serial, name in found.items()}


def life_days(certificate: x509.Certificate) -> float:
    """Return the days from the first to the last moment at which a certificate is valid."""
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / datetime.timedelta(days=1)


def issued_days(certificate: x509.Certificate) -> float:
    """Return the `days` for which the authority issued a certificate."""
    return life_days(certificate) - _BACKDATED / datetime.timedelta(days=1)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses of a server's certificate; empty for a client's."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def certificate_hosts(file: Path) -> list[str]:
    """Return the names and addresses of the server's certificate in a file; empty without one."""
    try:
        return hosts_of(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, ValueError):
        return []


def general_name(host: str) -> x509.GeneralName:
    """Convert a host's name or address, see `check_host`, for certificates."""
    return x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host)


def check_host(host: str) -> None:
    """Raise ConfigError unless `host` is an address or a name, which may begin with `*.` for any one label.

    Such names are those of RFC 6125, section 6.4.3.
    """
    if not (_HOST_NAME.fullmatch(host) or _is_address(host)):
        raise ConfigError(f"host: expected a name or an address, got {host!r}. Correct it.")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _name(common: str, generation: int = 0) -> x509.Name:
    unit = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, str(generation))] if generation else []
    return x509.Name([*unit, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuers_key: ec.EllipticCurvePublicKey,
    days: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + datetime.timedelta(days=days)) - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
