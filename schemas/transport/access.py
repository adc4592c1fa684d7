"""Connections of a role to its brokers: TLS from PEM files, with a certificate or a password for each role.

Nothing here disables the verification of a server. A role without an authority connects without TLS, and its settings
show it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from schemas.errors import ConfigError, SecretError

AUTHORITY_FILE: Final = "ca.crt"
CERTIFICATE_FILE: Final = "tls.crt"
KEY_FILE: Final = "tls.key"
"""File names in a Kubernetes secret of the type `kubernetes.io/tls`."""

_CERTIFICATE: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_WORDS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not to be trusted",
    "TLSV1_ALERT_UNKNOWN_CA": "a rejection of our certificate: its authority is of another fleet",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "a rejection of our certificate: it is of another fleet or expired",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: enrol again",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate has been revoked: enrol again",
    "SSLV3_ALERT_BAD_CERTIFICATE": "a request for a certificate, and ours is missing or damaged",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "a rejection of our certificate: its kind is not supported",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a request for a certificate, and none is given",
    "WRONG_VERSION_NUMBER": "a server without TLS on this port",
    "RECORD_LAYER_FAILURE": "a server without TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": "the end of the connection as TLS began: this port may be without TLS",
}
EXPIRED: Final = 10
"""OpenSSL's number of the X.509 verification result for an expired certificate."""
# X.509 verification results by OpenSSL's numbers.
_VERIFIED: Final = {
    9: "it is not valid yet: check this machine's clock",
    EXPIRED: "it has expired",
    18: "it is self-signed",
    19: "it is of another authority than the one we were given",
    20: "it is of another authority than the one we were given",
    21: "it is of another authority than the one we were given",
    23: "it has been revoked",
    26: "it is not made for a server",
    62: "it is for another host name",
    64: "it is for another address",
}


class _RenewedContext(ssl.SSLContext):
    """A client's context that reloads its certificate before a connection if the files have changed.

    A long-running role needs no restart when its certificate is renewed. While only one of the two files has been
    replaced, they do not match, and the previous certificate stays in use.
    """

    _files: tuple[Path, Path | None] | None = None
    _version: object = None

    def follow(self, certificate: Path, key: Path | None) -> None:
        """Load the certificate, and reload it whenever one of its files changes; ConfigError if it cannot be loaded."""
        self._files = (certificate, key)
        self._version = self._now()
        _load(self, certificate, key)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Begin TLS on a socket, with the current certificate."""
        self._renew()
        return super().wrap_socket(*arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin TLS between buffers, as asyncio does, with the current certificate."""
        self._renew()
        return super().wrap_bio(*arguments, **options)

    def _renew(self) -> None:
        if self._files is None or (now := self._now()) == self._version:
            return
        try:
            # First into another context: a failed load would leave this one without a key.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), *self._files)
            _load(self, *self._files)
        except (ConfigError, SecretError):
            return
        self._version = now

    def _now(self) -> object:
        files = [file for file in self._files or () if file is not None]
        try:
            return [(found.st_mtime_ns, found.st_ino, found.st_size) for found in (file.stat() for file in files)]
        except OSError:
            return self._version


@dataclass(frozen=True)
class Tls:
    """The trusted authorities, and the role's own certificate."""

    authorities: str | None
    """Certificates in PEM of the authorities whose servers are trusted; None trusts those of this machine's system."""
    certificate: Path | None = None
    """The role's certificate in PEM, and the chain to its authority."""
    key: Path | None = None
    """The certificate's private key in PEM; None if it is in the certificate's file."""

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Read `ca.crt` in `folder`, and `tls.crt` and `tls.key` if present; ConfigError if `ca.crt` cannot be used."""
        authority, certificate, key = (folder / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE))
        try:
            text = authority.read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{authority}: expected the authority's certificate, got {fault_of(error)}. Correct the path."
            ) from None
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), text, authority)
        if not certificate.exists():
            return cls(text)
        return cls(text, certificate, key)

    def context(self) -> ssl.SSLContext:
        """Return a context for a client's connections; each presents the certificate that the files hold at that time.

        Raises ConfigError if a file is missing, is not PEM, or does not match the others.
        """
        context = _RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.authorities is None:
            context.load_default_certs()
        else:
            _trust(context, self.authorities, "authorities")
        if self.certificate is not None:
            context.follow(self.certificate, self.key)
        return context


def _trust(context: ssl.SSLContext, authorities: str, name: object) -> None:
    try:
        context.load_verify_locations(cadata=_decoded(authorities))
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{name}: expected certificates in PEM, got another form. Correct the file.") from None


@lru_cache(maxsize=8)
def _decoded(authorities: str) -> bytes | str:
    """Return certificates in PEM as DER, which each context of a fleet reads in half the time; other text unchanged.

    OpenSSL knows further forms, such as `X509 CERTIFICATE`: a text with one of them is unchanged too.
    """
    blocks = _CERTIFICATE.findall(authorities)
    if len(blocks) != authorities.count("-----BEGIN "):
        return authorities
    return b"".join(map(ssl.PEM_cert_to_DER_cert, blocks)) or authorities


def secured(connected: socket.socket, context: ssl.SSLContext, host: str, timeout_s: float) -> ssl.SSLSocket:
    """Begin TLS on a connected socket, as a client of `host`; the socket is closed if that fails.

    Blocks for at most `timeout_s` seconds between two packets. Raises OSError, the base of `ssl.SSLError`.
    """
    connected.settimeout(timeout_s)
    try:
        return context.wrap_socket(connected, server_hostname=host)
    except BaseException:
        connected.close()
        raise


def certificate_end(link: ssl.SSLSocket) -> float:
    """Return the Unix time at which the certificate of a verified server ends, by a connection to it."""
    found = link.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


async def secured_on_loop(connected: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """Begin TLS as `secured` does, without blocking the running loop; `connected` is non-blocking. No time limit."""
    loop = asyncio.get_running_loop()
    link = context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                link.do_handshake()
            except ssl.SSLWantReadError:
                await _until(loop.add_reader, loop.remove_reader, link)
            except ssl.SSLWantWriteError:
                await _until(loop.add_writer, loop.remove_writer, link)
            else:
                return link
    except BaseException:
        link.close()
        raise


async def _until(add: Callable[..., object], remove: Callable[..., object], link: socket.socket) -> None:
    """Return when a socket is readable, or writable."""
    ready = asyncio.Event()
    add(link, ready.set)
    try:
        await ready.wait()
    finally:
        remove(link)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of an HTTPS server; ConfigError if a file is missing, is not PEM, or the two do not match."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate, key)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    names = f"{certificate}" if key is None else f"{certificate} and {key}"

    def no_password() -> str:
        raise SecretError(
            f"{key or certificate}: expected a private key without a password, got an encrypted one. Decrypt it."
        )

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        why = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are not in PEM"
        raise ConfigError(
            f"{names}: expected a certificate and its private key, got files that {why}. Correct the paths."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{names}: expected a certificate and its private key, got {fault_of(error)}. Correct the paths."
        ) from None


@dataclass(frozen=True)
class Login:
    """A user and a password."""

    user: str
    password: SecretStr

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user:password`; SecretError gives the form, and never the text."""
        user, colon, password = text.strip().partition(":")
        if not (user and colon and password):
            raise SecretError("login: expected user:password in one line, got another form. Correct it.")
        return cls(user, SecretStr(password))


@dataclass(frozen=True)
class KafkaAccess:
    """A Kafka that requires TLS: mutual, or with a password by SCRAM-SHA-512."""

    bootstrap: str
    """`host:port`, or several separated by commas."""
    tls: Tls
    login: Login | None = None

    def __str__(self) -> str:
        return self.bootstrap


KafkaAddress = str | KafkaAccess
"""An address; `host:port` alone is a Kafka without TLS."""


@dataclass(frozen=True)
class MqttAccess:
    """The address and the credentials of an MQTT broker."""

    host: str
    port: int
    tls: Tls | None = None
    """None connects without TLS."""
    login: Login | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        return self.host, self.port


MqttAddress = str | MqttAccess
"""An address; `host:port` alone is a broker without TLS."""


def mqtt_access(address: MqttAddress) -> MqttAccess:
    """Return the broker at an address; text is host:port."""
    if isinstance(address, MqttAccess):
        return address
    host, _, port = address.rpartition(":")
    return MqttAccess(host.strip("[]"), int(port))


def kafka_options(address: KafkaAddress, name: str = "") -> dict[str, Any]:
    """Return the aiokafka options for Kafka's address, TLS and login, and for the client id `name` in Kafka's log."""
    options: dict[str, Any] = {"bootstrap_servers": str(address)} | ({"client_id": name} if name else {})
    if isinstance(address, str):
        return options
    options["ssl_context"] = address.tls.context()
    if address.login is None:
        return options | {"security_protocol": "SSL"}
    return options | {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": address.login.user,
        "sasl_plain_password": address.login.password.get_secret_value(),
    }


def tls_refusal(error: BaseException) -> str | None:
    """Return the reason if `error` is a TLS failure, which only a user can fix; else None."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_WORDS['CERTIFICATE_VERIFY_FAILED']}: {_VERIFIED.get(error.verify_code, error.verify_message)}"
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return _WORDS.get(error.reason, f"TLS failed: {error.reason.lower().replace('_', ' ')}")
    return None


def fault_of(error: OSError | ValueError) -> str:
    """Return the reason why a text file could not be read."""
    return error.strerror or str(error) if isinstance(error, OSError) else "a file that is not text"
