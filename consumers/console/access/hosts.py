"""The `Host` headers under which the console serves its pages.

The check prevents DNS rebinding. In a visitor's browser, a foreign page could let its own name resolve to our address.
The browser would then let that page read ours. The page cannot choose the `Host` header that its browser sends.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from consumers.console.access.connections import CONNECTIONS

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
"""RFC 9110, section 7.2: a name or an address, and perhaps a port. Other characters could change the URL that the value
becomes part of."""


class Hosts:
    """The names that the `Host` header of a request may have."""

    def __init__(self, listen: str, allowed_host: Collection[str] = ()) -> None:
        """`listen` is the listening address; `allowed_host` are further names, such as a proxy's."""
        self._names = frozenset({_name(listen), *map(_name, allowed_host)})
        try:
            address = ip_address(listen)
        except ValueError:
            self._any_address, local = False, listen == "localhost"
        else:
            # An attacker can repoint a name, but not a literal address: any address is safe if all are listened on.
            self._any_address, local = address.is_unspecified, address.is_loopback or address.is_unspecified
        if local:
            self._names |= _LOOPBACK

    def __contains__(self, host: str) -> bool:
        """Return whether `host`, with a port or without one, is allowed."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = _name(found["ipv6"] or found["name"])
        return name in self._names or (self._any_address and _is_address(name))


def _name(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class OnlyOwnHosts:
    """Middleware that answers requests for other hosts with status 421."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 421, or pass the request to the application."""
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        if host in self._hosts:
            await self._app(scope, receive, send)
            return
        CONNECTIONS.counts["misdirected"] += 1
        complaint = f"these pages are not served as {host[:200]!r}: see --allowed-host"
        # No page: its links would lead to the same host, and the gate, which adds the headers of pages, comes later.
        await JSONResponse({"error": complaint}, 421)(scope, receive, send)
