"""Poller of all roles' states and the firing rules, and the system status computed from them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consumers.cameras.state import State
from consumers.console.access.sight import ALL, Sight
from consumers.console.data.fleet import Fleet
from consumers.console.data.frame_rates import FrameRates
from consumers.console.data.prometheus import read_roles
from consumers.console.data.roles import ReadRoles, RoleState, unwell
from consumers.console.data.rules import MOST_FIRING, FiringRule, Rules, read_rules
from consumers.console.data.stream import HEARTBEAT_S
from schemas.errors import BrokerError, error_text
from schemas.runtime.worker_threads import WorkerThreads
from schemas.waiting import wait_at_most

ROLES_S: Final = 1.0
RULES_S: Final = 2.0
_UNSEEN_S: Final = 1.5 * HEARTBEAT_S
"""Interval of both while nobody has a page open, and the time since the last request that shows it."""
NO_RULES: Final = (
    "There are no rules: start the console with --prometheus. `pointillist up` starts Prometheus if the Debian package "
    "prometheus is installed."
)
NO_ROLES: Final = "There are no roles: start the console with --prometheus, or with the state folder of a running `up`."


@dataclass(frozen=True)
class Pill:
    """The system status in a few words, for the header of every page."""

    text: str
    level: str
    """`good`, `warn` or `bad`."""
    address: str
    """The page with details."""


@dataclass(frozen=True)
class Header:
    """The changing parts of every page's header."""

    pill: Pill
    alerts: int
    """Cameras with an open alert."""
    dead_letters: int
    """Dead letters of the last day."""


class SystemWatch:
    """The last states read. For one event loop."""

    def __init__(self, fleet: Fleet, read: ReadRoles | None, prometheus: str | None) -> None:
        """Set the sources.

        `read` returns the roles. Without it they are read from the Prometheus at the URL, if there is one.
        """
        self._fleet = fleet
        if read is None and prometheus is not None:
            read = _of_prometheus(prometheus)
        self._read = read
        self._prometheus = prometheus
        self._run_in_thread = WorkerThreads(2, "system")
        self._rates = FrameRates()
        self._asked = asyncio.Event()
        self._asked_s = -math.inf
        self.roles: tuple[RoleState, ...] = ()
        self.rates: dict[str, float] = {}
        """Frames a second of each role that counts them."""
        self.rules = Rules()
        self._by_sight: dict[Sight, Rules] = {}
        self._by_sight_of = self.rules
        """The rules from which `_by_sight` was selected."""
        self._headers: dict[Sight, Header] = {}
        self._headers_of: tuple[int, Sequence[RoleState], Rules] = (-1, self.roles, self.rules)
        """Version of the fleet, roles and rules from which `_headers` were computed."""
        self.no_roles = NO_ROLES if read is None else "The roles have not been read yet."
        """The reason why there are no roles; empty if there are some."""
        self.no_rules = NO_RULES if prometheus is None else "The rules have not been read yet."
        """The reason why the rules are unknown; empty if they are known."""

    async def run(self) -> None:
        """Poll until cancelled, seldom while nobody has a page open."""
        async with asyncio.TaskGroup() as tasks:
            if self._read is not None:
                tasks.create_task(self._repeat(self.poll_roles, ROLES_S))
            if self._prometheus is not None:
                tasks.create_task(self._repeat(self.poll_rules, RULES_S))
            await asyncio.Event().wait()

    async def _repeat(self, read: Callable[[], None], every_s: float) -> None:
        while True:
            before = self.roles, self.rates, self.rules, self.no_roles, self.no_rules
            await self._run_in_thread(read)
            if before != (self.roles, self.rates, self.rules, self.no_roles, self.no_rules):
                self._fleet.notify_pages()
            await asyncio.sleep(every_s)
            if time.monotonic() - self._asked_s > _UNSEEN_S:
                self._asked.clear()
                await wait_at_most(self._asked, _UNSEEN_S)

    def _note_request(self) -> None:
        self._asked_s = time.monotonic()
        self._asked.set()

    def poll_roles(self) -> None:
        """Read the roles. Blocks."""
        assert self._read is not None
        try:
            self.roles, self.no_roles = tuple(self._read()), ""
        except Exception as error:  # another program's answer: the pages continue without it
            self.roles, self.no_roles = (), error_text(error)
        self._rates.add(self.roles, time.monotonic())
        self.rates = self._rates.rates()

    def poll_rules(self) -> None:
        """Read the rules. Blocks."""
        assert self._prometheus is not None
        try:
            self.rules, self.no_rules = read_rules(self._prometheus), ""
        except BrokerError as error:
            self.rules, self.no_rules = Rules(), str(error)

    def pill(self, sight: Sight = ALL) -> Pill:
        """Return the current status, the worst first; for some sites, without the roles, which serve all of them."""
        self._note_request()
        return self._pill(sight, *self._fleet.alerts(sight))

    def _pill(self, sight: Sight, opened: int, acknowledged: int) -> Pill:
        parts: list[tuple[str, str, str]] = []  # text, level, address
        roles = self.roles if sight == ALL else ()
        if down := unwell(roles):
            parts.append((down, "bad", "/system"))
        if opened:
            parts.append((_counted(opened, "alert"), "bad", "/alerts"))
        if acknowledged:
            parts.append((f"{_counted(acknowledged, 'alert')} acknowledged", "warn", "/alerts?state=acknowledged"))
        loud = [each for each in self.firing_rules(sight).firing if not self._is_muted(each)]
        if names := {each.name for each in loud}:
            critical = any(each.severity == "critical" and not self._known(each) for each in loud)
            fire = "1 rule fires" if len(names) == 1 else f"{len(names)} rules fire"
            parts.append((fire, "bad" if critical else "warn", "/rules"))
        if away := [f"site {site.name} {site.state}" for site in self._fleet.sites(sight) if site.state != "up"]:
            parts.append((away[0] if len(away) == 1 else f"{len(away)} sites not read", "warn", "/"))
        here = [card for card in self._fleet.cards(sight) if not card.is_away]
        faulty = [card for card in here if card.state.is_fault and not card.mute_of_camera]
        if impaired := sum(1 for card in faulty if card.state is not State.ALERT):
            parts.append((f"{_counted(impaired, 'camera')} not well", "warn", "/"))
        seen, muted = self._fleet.sightings(sight), self._fleet.muted(sight)
        level = "bad" if any(each[1] == "bad" for each in parts) else "warn" if parts else "good"
        if not parts:
            address = "/alerts" if seen else "/system" if sight == ALL else "/"
            parts.append(("all well" if roles else "no alert", level, address))
        if seen:
            parts.append((_counted(seen, "sighting"), "good", "/alerts"))
        if muted:
            parts.append((f"{muted} muted", "good", "/"))
        return Pill(" · ".join(each[0] for each in parts), level, parts[0][2])

    def header(self, sight: Sight = ALL) -> Header:
        """Return the current header for a reader of these sites, computed once for all readers."""
        self._note_request()
        now = (self._fleet.version, self.roles, self.rules)
        if now != self._headers_of:
            self._headers, self._headers_of = {}, now
        found = self._headers.get(sight)
        if found is None:
            found = self._headers[sight] = self._header(sight)
        return found

    def _header(self, sight: Sight) -> Header:
        opened, acknowledged = self._fleet.alerts(sight)
        return Header(
            self._pill(sight, opened, acknowledged),
            opened + self._fleet.sightings(sight),
            self._fleet.dead_letters(sight),
        )

    def firing_rules(self, sight: Sight) -> Rules:
        """Return the rules, at most `MOST_FIRING` of them firing; for some sites, only what fires for their cameras."""
        if self._by_sight_of is not self.rules:
            self._by_sight, self._by_sight_of = {}, self.rules
        found = self._by_sight.get(sight)
        if found is None:
            found = self._by_sight[sight] = self._firing_rules(sight)
        return found

    def _firing_rules(self, sight: Sight) -> Rules:
        if sight == ALL:
            return Rules(self.rules.firing[:MOST_FIRING], self.rules.quiet)
        firing = tuple(each for each in self.rules.firing if sight.sees(each.subject))
        names = {each.name for each in firing}
        known = sorted({*self.rules.names, *self.rules.quiet})
        return Rules(firing[:MOST_FIRING], tuple(name for name in known if name not in names))

    def _known(self, rule: FiringRule) -> bool:
        """Return whether a rule concerns a camera with an acknowledged alert.

        The rule fires until the cause is over.
        """
        card = self._fleet.card(rule.subject)
        return card is not None and card.acknowledged

    def _is_muted(self, rule: FiringRule) -> bool:
        """Return whether a rule concerns a muted camera."""
        card = self._fleet.card(rule.subject)
        return card is not None and card.mute_of_camera

    def document(self) -> dict[str, Any]:
        """Return the context of the templates that show roles and rules."""
        self._note_request()
        rules = self.firing_rules(ALL)
        return {"roles": self.roles, "no_roles": self.no_roles, "rules": rules, "no_rules": self.no_rules}

    def close(self) -> None:
        """Stop the threads."""
        self._run_in_thread.close(wait=False)


def _of_prometheus(url: str) -> ReadRoles:
    return lambda: read_roles(url)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
