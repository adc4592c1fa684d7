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
                roles = [each for each in role_states(self._layout, counted=False) if not self.is_usual(each)]
            except (PointillistError, OSError, ValueError):  # the table of roles does not exist yet, or no longer
                continue
            self._line = line_of(roles, rules_of(roles))

    def is_usual(self, role: RoleState) -> bool:
        """Return whether a role may be down: the fleet starts last, and ends when its work is done."""
        starts = role.state == "not ready" and time.monotonic() - self._started_s < STARTING_S
        return role.name.partition("-")[0] == "fleet" and (starts or role.state == "gone")

    def close(self) -> None:
        """Stop reading, without a wait for requests in flight."""
        self._end.set()
        self._line = ""


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
