"""The programs of the local servers, where they are installed."""

from __future__ import annotations

import shutil
from typing import Final

from schemas.errors import BrokerError

SYSTEM_PATH: Final = "/usr/sbin:/usr/local/sbin"
"""Folders of servers that are not on every user's path."""


def find_program(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed; None without any."""
    found = (shutil.which(name) or shutil.which(name, path=SYSTEM_PATH) for name in names)
    return next(filter(None, found), None)


def require_program(found: str | None, package: str) -> str:
    """Return the path of a program. Raises BrokerError with its Debian package if it is not installed."""
    if found is None:
        raise BrokerError(f"{package} is missing: expected the program on PATH. Install the Debian package {package}.")
    return found


def prometheus_binary() -> str | None:
    """Return Prometheus's program; None when it is not installed."""
    return find_program("prometheus")


def alertmanager_binary() -> str | None:
    """Return Alertmanager's program, under Debian's name or its makers'; None when it is not installed."""
    return find_program("prometheus-alertmanager", "alertmanager")


def grafana_binary() -> str | None:
    """Return Grafana's program; None when it is not installed."""
    return find_program("grafana")
