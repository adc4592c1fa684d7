"""What mosquitto's log tells of clients that it has refused, as it publishes the log below `$SYS/broker/log`.

Mosquitto counts none of that. `connection_messages true`, `log_dest topic` and `log_type subscribe` make it tell: found
in 2.0.11, and held by a test on the real one. Of a refused will, and of a message that is not delivered for want of a
right, it tells nobody.
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
"""Characters of a line that are looked at: a filter has up to 64 KiB."""

# The end of a connection on which nobody had a name yet comes also after what TLS has said, in the line before.
_LINES: Final[tuple[tuple[Refusal, re.Pattern[str]], ...]] = (
    ("login", re.compile(r"OpenSSL Error\[0\]: (?P<who>)(?!.*unexpected eof)(?P<detail>.*)")),
    ("login", re.compile(r"Client connection from (?P<who>\S+) failed: (?!.*unexpected eof)(?P<detail>.*)")),
    ("unnamed", re.compile(r"Client connection from (?P<who>\S+) failed: (?P<detail>.*)")),
    ("unnamed", re.compile(r"Client <unknown>(?P<who>)(?P<detail>.*)")),
    ("login", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected, not authorised")),
    ("login", re.compile(r"(?:Client c|C)onnection (?:attempt )?from (?P<who>\S+) denied")),
    # A refused message ends the connection by a code that mosquitto has no words for.
    ("publish", re.compile(r"Bad socket read/write on client (?P<who>.+?)(?: \[.*\])?: Unknown error")),
    ("takeover", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? already connected, closing old connection")),
    ("oversize", re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected due to oversize (?:packet|payload)")),
    (
        "protocol",
        re.compile(r"Client (?P<who>.+?)(?: \[.*\])? disconnected due to (?:malformed|protocol)"),
    ),
)
_SUBSCRIPTION: Final = re.compile(r"(?P<who>\S+/\S+) [012] (?P<detail>.*)")


class Refused(NamedTuple):
    """One line of the log."""

    what: Refusal
    who: str
    """By the name of its certificate; an address, or nothing, where nobody has got that far."""
    detail: str


def refused(topic: bytes, line: bytes) -> Refused | None:
    """What a line on `topic`, below `LOG_TOPIC`, tells; None when it is about nothing that was refused."""
    _, _, text = line[:_LONGEST].decode(errors="replace").partition(": ")  # the time is before it
    if topic.removeprefix(LOG_TOPIC) == _SUBSCRIBED:
        return _subscription(text)
    for what, pattern in _LINES:
        if found := pattern.match(text):
            groups = found.groupdict()
            return Refused(what, groups["who"], groups.get("detail", ""))
    return None


def _subscription(text: str) -> Refused | None:
    """A camera's, unless it is to its own topics: mosquitto takes any, and delivers nothing by it.

    Only names with a slash are judged: those of cameras, where the broker calls clients by their certificates.
    """
    found = _SUBSCRIPTION.match(text)
    if found is None or found["detail"].startswith(f"{ROOT}/{found['who']}/"):
        return None
    return Refused("subscription", found["who"], found["detail"])
