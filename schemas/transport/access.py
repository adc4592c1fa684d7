"""How a role reaches its brokers: by TLS under PEM files, with a certificate or a password of its own.

Nothing here turns the verification of a server off: whoever gives no authority connects without TLS, and says so.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from schemas.errors import ConfigError, SecretError

AUTHORITY_FILE: Final = "ca.crt"
CERTIFICATE_FILE: Final = "tls.crt"
KEY_FILE: Final = "tls.key"
"""The names that a Kubernetes secret of the type `kubernetes.io/tls` gives them."""

_WORDS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not to be trusted",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know the authority of our certificate: it is of another fleet",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server does not trust our certificate: it is of another fleet or has ended",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: enrol anew",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate has been revoked: enrol anew",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server asks for a certificate, and ours is missing or bad",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the server does not take a certificate of this kind",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server asks for a certificate, and none is given",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "the server does not speak TLS on this port",
    "UNEXPECTED_EOF_WHILE_READING": "the server ended the connection while TLS began: it may speak none on this port",
}
# X.509 verification results as OpenSSL numbers them.
_VERIFIED: Final = {
    9: "it is not valid yet: look at this machine's clock",
    10: "it has expired",
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
    """A client's context that reads its certificate again before a connection, if the files have changed.

    A role that runs for longer than its certificate holds needs no restart when that is renewed. While the files do not
    belong together, as between the replacement of one and of the other, the former certificate stays.
    """

    _files: tuple[Path, Path | None] | None = None
    _version: object = None

    def follow(self, certificate: Path, key: Path | None) -> None:
        """Load the certificate, and again whenever one of its files changes; ConfigError when that is impossible."""
        self._files = (certificate, key)
        self._version = self._now()
        _load(self, certificate, key)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Begin TLS on a socket, with the present certificate."""
        self._renew()
        return super().wrap_socket(*arguments, **options)

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin TLS between buffers, as asyncio does, with the present certificate."""
        self._renew()
        return super().wrap_bio(*arguments, **options)

    def _renew(self) -> None:
        if self._files is None or (now := self._now()) == self._version:
            return
        try:
            # A load that fails would leave this context without a key.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), *self._files)
            _load(self, *self._files)
        except ConfigError:
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
    """Whom we trust, and who we are."""

    authorities: str | None
    """Certificates in PEM of those whose servers are trusted; None is whom this machine's system trusts."""
    certificate: Path | None = None
    """Our own certificate in PEM, and what leads from it to its authority."""
    key: Path | None = None
    """Its private key in PEM; None when it is in the certificate's file."""

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """`ca.crt` in `folder`, and where they are there, `tls.crt` and `tls.key`; ConfigError when it cannot be."""
        authority, certificate, key = (folder / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE))
        try:
            text = authority.read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"expected the authority's certificate in {authority}: {_why(error)}") from None
        if not certificate.exists():
            return cls(text)
        return cls(text, certificate, key)

    def context(self) -> ssl.SSLContext:
        """A context for connections of a client, each of which presents the certificate that the files hold then.

        Raises ConfigError when a file is missing, is no PEM, or does not belong to the others.
        """
        context = _RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.authorities is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cadata=self.authorities)
        except (ssl.SSLError, ValueError):
            raise ConfigError("expected certificates of authorities in PEM, got something else") from None
        if self.certificate is not None:
            context.follow(self.certificate, self.key)
        return context


def secured(connected: socket.socket, context: ssl.SSLContext, host: str, timeout_s: float) -> ssl.SSLSocket:
    """Begin TLS on a connected socket, as a client of `host`; the socket is closed when that fails.

    Blocks, for at most `timeout_s` seconds between two packets. Raises OSError, which `ssl.SSLError` is one of.
    """
    connected.settimeout(timeout_s)
    try:
        return context.wrap_socket(connected, server_hostname=host)
    except BaseException:
        connected.close()
        raise


async def secured_on_loop(connected: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """The same on the running loop, which goes on meanwhile; `connected` does not block. There is no time limit."""
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
    """Return when a socket can be read from, or written to."""
    ready = asyncio.Event()
    add(link, ready.set)
    try:
        await ready.wait()
    finally:
        remove(link)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server of pages; ConfigError when a file is missing, is no PEM, or they do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate, key)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    names = f"{certificate}" if key is None else f"{certificate} and {key}"

    def no_password() -> str:
        raise SecretError(f"expected a private key without a password in {key or certificate}")

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        why = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "not in PEM"
        raise ConfigError(f"expected a certificate and its private key in {names}: {why}") from None
    except OSError as error:
        raise ConfigError(f"expected a certificate and its private key in {names}: {_why(error)}") from None


@dataclass(frozen=True)
class Login:
    """A user and a password."""

    user: str
    password: SecretStr

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user:password`; SecretError says the form, and never the text."""
        user, colon, password = text.strip().partition(":")
        if not (user and colon and password):
            raise SecretError("a login is written user:password, in one line")
        return cls(user, SecretStr(password))


@dataclass(frozen=True)
class KafkaAccess:
    """A Kafka that wants TLS: mutual, or with a password by SCRAM-SHA-512."""

    bootstrap: str
    """`host:port`, several with commas between them."""
    tls: Tls
    login: Login | None = None

    def __str__(self) -> str:
        return self.bootstrap


KafkaAddress = str | KafkaAccess
"""`host:port` alone is a Kafka without TLS."""


@dataclass(frozen=True)
class MqttAccess:
    """An MQTT broker and the means to reach it."""

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
"""`host:port` alone is a broker without TLS."""


def mqtt_access(address: MqttAddress) -> MqttAccess:
    """Return the broker at an address; text is host:port."""
    if isinstance(address, MqttAccess):
        return address
    host, _, port = address.rpartition(":")
    return MqttAccess(host.strip("[]"), int(port))


def kafka_options(address: KafkaAddress) -> dict[str, Any]:
    """What every client of aiokafka is told of where Kafka is and how it is reached."""
    if isinstance(address, str):
        return {"bootstrap_servers": address}
    options: dict[str, Any] = {"bootstrap_servers": address.bootstrap, "ssl_context": address.tls.context()}
    if address.login is None:
        return options | {"security_protocol": "SSL"}
    return options | {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": address.login.user,
        "sasl_plain_password": address.login.password.get_secret_value(),
    }


def tls_refusal(error: BaseException) -> str | None:
    """Why TLS failed, in words, when `error` says that it did: what a person has to mend, and waiting does not."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_WORDS['CERTIFICATE_VERIFY_FAILED']}: {_VERIFIED.get(error.verify_code, error.verify_message)}"
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return _WORDS.get(error.reason, f"TLS failed: {error.reason.lower().replace('_', ' ')}")
    return None


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no text"
