"""Preflight check of PostgreSQL when a person starts a recorder or an audit; a running role waits for it."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, ProgrammingError

from consumers.database.engine import client_settings, database_url, open_engine
from infra.local.tls import NoTlsError, postgresql_tls
from infra.preflight.brokers import NotReadyError, RefusedError, require
from schemas.errors import BrokerError, ConfigError
from schemas.transport.access import Tls, tls_refusal

_ANSWER_S: Final = 5.0
# Messages of libpq and the server that need a person: waiting does not help.
_REFUSALS: Final = (
    (r"password authentication failed", "wrong user or password"),
    (
        r"no password supplied",
        "a request for a password, which neither PGPASSWORD nor a file named by PGPASSFILE gives",
    ),
    (r"no pg_hba\.conf entry .*no encryption", "it takes nobody without TLS: sslmode=verify-full"),
    (r"no pg_hba\.conf entry", "it has no rule for this user, database and address in its pg_hba.conf"),
    (r'(database|role) "[^"]*" does not exist', None),
    (r"invalid .*(option|value|number)|unrecognized configuration parameter|definition of service", None),
    (r"does not support SSL", "a server without TLS on this port"),
    (r"certificate|SSL error|sslmode|sslrootcert", None),
)
_BEFORE: Final = ("failed: ", "FATAL: ", "ERROR: ", "is bad: ")


def require_database(url: str, wait_s: float) -> None:
    """Return when the PostgreSQL of an SQLAlchemy `url` accepts us, and at once for SQLite or a `wait_s` of 0.

    Raises ConfigError for an invalid URL. Raises `BrokerError` when no server has answered after `wait_s` seconds, or
    at once when one rejects us or is not trusted. The messages hold no password.
    """
    parsed = _server(url)
    if parsed is None or not wait_s:
        return

    def answers() -> bool:
        try:
            why = _refusal(url, parsed)
        except NotReadyError:
            raise
        except OSError:
            return False
        if why is not None:
            raise RefusedError(why)
        return True

    settings = client_settings(parsed)
    require("PostgreSQL", (settings["host"], int(settings["port"])), wait_s, answers)


def look_for_refusal(url: str) -> None:
    """Raise `BrokerError` when PostgreSQL answers and rejects us; no answer is no error here."""
    parsed = _server(url)
    if parsed is None:
        return
    try:
        why = _refusal(url, parsed)
    except OSError:
        return
    if why is not None:
        settings = client_settings(parsed)
        raise BrokerError(
            f"PostgreSQL at {settings['host']}:{settings['port']}: expected an accepted connection, got "
            f"{why}. Correct the address, the login or the certificate."
        )


def _server(url: str) -> URL | None:
    parsed = database_url(url)
    return None if parsed.get_backend_name() == "sqlite" else parsed


def _refusal(url: str, parsed: URL) -> str | None:
    """Return the server's reason for rejecting us, None when it accepts; OSError when none answers, which may pass."""
    engine = open_engine(url, writes=False)
    try:
        engine.connect().close()
    except (OperationalError, ProgrammingError) as error:
        complaint = " ".join(str(error.orig).split())
    else:
        return None
    finally:
        engine.dispose()
    for pattern, words in _REFUSALS:
        if found := re.search(pattern, complaint):
            if words is not None:
                return words
            return _distrust(client_settings(parsed)) or _last(complaint, found.start())
    _, fatal, answer = complaint.rpartition("FATAL: ")
    raise NotReadyError(answer) if fatal else ConnectionError(complaint)


def _last(complaint: str, place: int) -> str:
    """Return the clause of a long line with the reason: libpq puts the address of the connection before it."""
    before = (complaint.rfind(mark, 0, place) + len(mark) for mark in _BEFORE if mark in complaint[:place])
    return complaint[max(before, default=0) :].partition(" Either provide")[0].strip()


def _distrust(settings: dict[str, str]) -> str | None:
    """Return the reason for our distrust, worded as for all servers; None for any other fault."""
    try:
        context = Tls(Path(settings["sslrootcert"]).read_text()).context()
        with postgresql_tls((settings["host"], int(settings["port"])), context, _ANSWER_S):
            return None
    except NoTlsError:
        return "a server without TLS on this port"
    except ssl.SSLError as error:
        return tls_refusal(error)
    except ConfigError as error:
        return f"sslrootcert: {error}"
    except (OSError, ValueError, KeyError):
        return None
