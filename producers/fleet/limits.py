"""Limits of a process with many cameras: connections at a time, intervals and open files."""

from __future__ import annotations

from typing import Final

from producers.publisher import LinkSettings
from producers.spool.files import OPEN_FILES
from schemas.runtime.open_files import raise_open_files

CONNECTING: Final = 64
"""Connections without TLS that a process opens at the same time."""
SECURING: Final = 16
"""Connections with TLS that a process opens at the same time.

A handshake takes milliseconds of CPU time on both sides. On a busy machine, 64 at a time all exceed their timeout.
"""
_PINGS_PER_S: Final = 250
_SECURED_PINGS_PER_S: Final = 100
"""Lower with TLS: a connection that is lost because of a late ping costs far more to restore."""
_LEDGERS_PER_S: Final = 50
_FILES: Final = 512
_FILES_PER_CAMERA: Final = 8
"""Open files per camera: its connection, and what it reads and writes while frames wait. If the system allows fewer,
the spools share what the connections leave.
"""
_FEWEST_SPOOL_FILES: Final = 16


def link_of(cameras: int, *, secure: bool = False) -> LinkSettings:
    """Return the link settings for a process with this many cameras; `secure` is with TLS.

    The rates of pings and ledgers of the whole process are bounded, so each camera sends them less often in a large
    fleet: with 10,000 cameras a ledger every 200 s, and immediately when frames are shed and at the end.
    """
    usual = LinkSettings()
    return LinkSettings(
        keepalive_s=max(usual.keepalive_s, cameras // (_SECURED_PINGS_PER_S if secure else _PINGS_PER_S)),
        ledger_every_s=max(usual.ledger_every_s, cameras / _LEDGERS_PER_S),
    )


def allow_open_files(cameras: int) -> None:
    """Raise this process's soft limit of open files for this many cameras, up to the hard limit.

    The spools get the files that the connections leave.
    """
    wanted = _FILES + _FILES_PER_CAMERA * cameras
    OPEN_FILES.limit = max(_FEWEST_SPOOL_FILES, raise_open_files(wanted) - _FILES - cameras)
