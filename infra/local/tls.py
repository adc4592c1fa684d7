"""TLS connections to brokers and databases for a single question, without their clients."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import closing
from typing import Final

from schemas.transport.access import secured

_SSL_REQUEST: Final = struct.pack(">ii", 8, 80877103)
"""PostgreSQL's first message of a client that wants TLS (PostgreSQL's documentation, *Message Formats*)."""
_TLS_FOLLOWS: Final = b"S"
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Kafka's first request, ApiVersions in version 0 without a client name. Its content does not matter."""


class NoTlsError(OSError):
    """A server answers that it has no TLS."""


def tls_connection(address: tuple[str, int], context: ssl.SSLContext, timeout_s: float) -> closing[ssl.SSLSocket]:
    """Open a connection with TLS, which the block closes. `timeout_s` limits each wait. Raises OSError."""
    return closing(secured(socket.create_connection(address, timeout_s), context, address[0], timeout_s))


def postgresql_tls(address: tuple[str, int], context: ssl.SSLContext, timeout_s: float) -> closing[ssl.SSLSocket]:
    """Open a connection as `tls_connection` does, to a PostgreSQL.

    Raises OSError, and NoTlsError if the server has no TLS.
    """
    plain = socket.create_connection(address, timeout_s)
    try:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != _TLS_FOLLOWS:
            raise NoTlsError("PostgreSQL: expected TLS, got a refusal")
    except OSError:
        plain.close()
        raise
    return closing(secured(plain, context, address[0], timeout_s))


def await_kafka_answer(link: ssl.SSLSocket) -> None:
    """Send Kafka a request, and read the beginning of its answer. Raises OSError.

    In TLS 1.3 the client's part ends first, so only an answer proves that the server has accepted our certificate.
    Kafka would also count a connection without a request as a failed one.
    """
    link.sendall(_API_VERSIONS)
    link.recv(4)
