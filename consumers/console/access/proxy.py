"""Logins by the headers of a trusted reverse proxy."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

from starlette.datastructures import Headers

from consumers.console.access.login_settings import ProxyLoginSettings
from consumers.console.access.private_lines import NAME
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Person


class ProxyLogin:
    """Reads who a request is from, if it came from the proxy itself."""

    def __init__(self, settings: ProxyLoginSettings, proxies: str) -> None:
        """`proxies` is the address of the proxy, or the network that it is in."""
        self._settings = settings
        self._proxies = ip_network(proxies)

    def person(self, headers: Headers, peer: str) -> Person | None:
        """Return the person; None without headers. Raises RefusedLoginError.

        `peer` is the address at the other end of the connection, never one from a header.
        """
        settings, name_header = self._settings, self._settings.name_header
        names, groups = headers.getlist(name_header), headers.getlist(settings.groups_header)
        if not names and not groups:
            return None
        if not self._is_proxy(peer):
            raise RefusedLoginError(f"{name_header}: expected a request of the proxy, got one from {peer}", 403)
        if len(names) != 1 or len(groups) > 1:
            raise RefusedLoginError(f"{name_header}: expected one header of the proxy, got another number", 403)
        if not NAME.fullmatch(names[0]):
            raise RefusedLoginError(
                f"{name_header}: expected at most 64 letters, digits and . _ @ -, got {names[0][:80]!r}", 403
            )
        right = settings.right_of(each.strip() for text in groups for each in text.split(","))
        if right is None:
            raise RefusedLoginError(
                f"{names[0]}: expected a group with a role in {settings.groups_header}, got none. Ask an admin.", 403
            )
        return Person(names[0], right)

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address) in self._proxies
