"""The roles that do not work and the firing rules, in one line for the terminal, read by a separate thread."""

from __future__ import annotations

import threading
import time
from typing import Final

from consumers.console.data.roles import RoleState, unwell
from consumers.console.data.rules import Rules, read_rules
from infra.state_folder import Layout
from infra.up.system_state import role_states
from schemas.errors import PointillistError

EVERY_S: Final = 1.0
STARTING_S: Final = 30.0
"""Seconds that a fleet may take to start before it counts as not ready."""
_MOST_NAMED: Final = 3


class SystemLine:
    """The roles of a state folder and the rules of its Prometheus, read in a thread: a hanging role blocks nothing."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._line = ""
        self._silent = set[str]()
        self._started_s = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system", daemon=True)

    def __call__(self) -> str:
        """Return the present line; empty when all is well."""
        return self._line

    def start(self) -> None:
        """Read until `close`."""
        self._started_s = time.monotonic()
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            try:
                roles = self.unusual(role_states(self._layout, counted=False))
            except (PointillistError, OSError, ValueError):  # the table of roles does not exist yet, or no longer
                continue
            self._line = line_of(roles, rules_of(roles))

    def unusual(self, roles: list[RoleState]) -> list[RoleState]:
        """Return the roles without those that may be down: a fleet starts last, and ends when its work is done.

        A fleet that ends stops answering shortly before it is gone, so that one counts at the second reading.
        """
        silent = {each.name for each in roles if _is_fleet(each) and each.state == "not answering"}
        starting = time.monotonic() - self._started_s < STARTING_S
        found = [
            each for each in roles
            if not (_is_fleet(each) and (each.state == "gone" or (each.state == "not ready" and starting)))
            and each.name not in silent - self._silent
        ]  # fmt: skip
        self._silent = silent
        return found

    def close(self) -> None:
        """Stop reading, without a wait for requests in flight."""
        self._end.set()
        self._line = ""


def _is_fleet(role: RoleState) -> bool:
    return role.name.partition("-")[0] == "fleet"


def rules_of(roles: list[RoleState]) -> Rules:
    """Return the rules of the Prometheus among the roles; none without a Prometheus or its answer."""
    address = next((each.listen for each in roles if each.name == "prometheus" and each.is_well), None)
    try:
        return read_rules(f"http://{address}") if address is not None else Rules()
    except PointillistError:
        return Rules()


def line_of(roles: list[RoleState], rules: Rules) -> str:
    """Format roles and rules in one line; empty when all is well."""
    names = rules.names
    shown = ", ".join(name.removeprefix("Pointillist") for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    fire = f"{len(names)} rule{'' if len(names) == 1 else 's'}: {shown}{more}" if names else ""
    return " · ".join(part for part in (unwell(roles), fire) if part)
