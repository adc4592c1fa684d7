"""Renewal of the certificates of roles and of cameras while a system runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

from infra.pki.authority import Authority
from infra.pki.enrolment import renew_enrolment
from infra.pki.roles import Roles, restart_note
from infra.pki.validity import ROLE_DAYS
from infra.state_folder import Layout
from schemas.errors import PointillistError
from schemas.identity import CameraId

EVERY_S: Final = 60.0
"""Seconds between checks. A clock that is set past the ends of certificates leaves them expired for this long."""
CAMERAS_EVERY: Final = 60
"""Checks from one that includes the cameras to the next. They may be thousands, and their certificates last years."""


class CertificateRenewal:
    """A thread that renews certificates that are due.

    Clients present the new ones at their next connection, and servers at their next start.
    """

    def __init__(
        self,
        layout: Layout,
        cameras: Callable[[], Collection[CameraId]],
        print_line: Callable[[str], None],
        every_s: float = EVERY_S,
    ) -> None:
        """`cameras` returns those that run in the system."""
        self._layout = layout
        self._cameras = cameras
        self._print_line = print_line
        self._every_s = every_s
        self._checks = 0
        self._failure: str | None = None
        """The line about the last check, if it has failed."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="renewal", daemon=True)

    def start(self) -> None:
        """Start with a wait: certificates due at the start of the system have been renewed."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self._closing.wait(self._every_s):
            self.check()

    def check(self) -> None:
        """Renew the certificates that are due, and print which servers have to restart.

        A failure is printed, but not again while it lasts.
        """
        failure, self._failure = self._failure, None
        try:
            authority = Authority(self._layout.pki)
            roles = Roles(authority)
            renewed = roles.renew(ROLE_DAYS) if roles.due(ROLE_DAYS) else {}
            if line := restart_note(renewed):
                self._print_line(f"{line}: stop and start `up`")
            if self._checks % CAMERAS_EVERY == 0:
                for camera in self._cameras():
                    if self._closing.is_set():
                        return
                    renew_enrolment(self._layout, authority, camera)
            self._checks += 1
        except (OSError, PointillistError) as error:
            self._failure = f"certificates were not renewed, the next attempt is in a minute: {error}"
            if self._failure != failure:
                self._print_line(self._failure)
