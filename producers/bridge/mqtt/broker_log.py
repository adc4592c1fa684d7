"""Refusals in the log that mosquitto publishes below `$SYS/broker/log`.

Mosquitto does not count refusals. The settings `connection_messages true`, `log_dest topic` and `log_type subscribe`
make it publish them, as found in 2.0.11; a test checks that against the real broker. The log omits refused wills, and
messages that are not delivered because the receiver has no right to read them.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from schemas.topics import ROOT

LOG_TOPIC: Final = b"$SYS/broker/log/"
LOG_FILTER: Final = "$SYS/broker/log/#"

Refusal: TypeAlias = Literal["login", "publish", "subscription", "takeover", "oversize", "protocol", "unnamed"]
REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
_SUBSCRIBED: Final = b"M/subscribe"
_LONGEST: Final = 1000
"""Maximum characters of a line that are parsed: a filter has up to 64 KiB."""

# The end of an unnamed connection follows the TLS error, which the line before has reported.
_LINES: Final[tuple[tuple[Refusal, re.Pattern[str]], ...]] = (
    ("login", re.compile(r"OpenSSL Error\[0\]: (?P<who>)(?!.*unexpected eof)(?P<detail>.*)")),
    ("login", re.compile(r"Client connection from (?P<who>\S+) failed: (?!.*unexpected eof)(?P<detail>.*)")),
    ("unnamed", re.compile(r"Client connection from (?P<who>\S+) failed: (?P<detail>.*)")),
    ("unnamed", re.compile(r"Client <unknown>(?P<who>)(?P<detail>.*)")),
    ("login", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected, not authorised")),
    ("login", re.compile(r"(?:Client c|C)onnection (?:attempt )?from (?P<who>\S+) denied")),
    # A rejected message ends the connection with a code that mosquitto does not describe.
    ("publish", re.compile(r"Bad socket read/write on client (?P<who>.+?)(?: \[.*\])?: Unknown error")),
    ("takeover", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? already connected, closing old connection")),
    ("oversize", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected due to oversize (?:packet|payload)")),
    (
        "protocol",
        re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected due to (?:malformed|protocol)"),
    ),
)
_SUBSCRIPTION: Final = re.compile(r"(?P<who>\S+/\S+) [012] (?P<detail>.*)")


class RefusalLine(NamedTuple):
    """One line of the log."""

    what: Refusal
    who: str
    """The name in the client's certificate. Without a certificate, the client's address, or an empty text."""
    detail: str


def refused(topic: bytes, line: bytes) -> RefusalLine | None:
    """Return the refusal in a log line on `topic`, below `LOG_TOPIC`; None for any other line."""
    _, _, text = line[:_LONGEST].decode(errors="replace").partition(": ")  # the time is before it
    if topic.removeprefix(LOG_TOPIC) == _SUBSCRIBED:
        return _subscription(text)
    for what, pattern in _LINES:
        if found := pattern.match(text):
            groups = found.groupdict()
            return RefusalLine(what, groups["who"], groups.get("detail", ""))
    return None


def _subscription(text: str) -> RefusalLine | None:
    """Return a camera's subscription to topics of others. Mosquitto accepts such a subscription, but delivers nothing.

    Only names with a slash count: cameras, if the broker names clients by their certificates.
    """
    found = _SUBSCRIPTION.match(text)
    if found is None or found["detail"].startswith(f"{ROOT}/{found['who']}/"):
        return None
    return RefusalLine("subscription", found["who"], found["detail"])
