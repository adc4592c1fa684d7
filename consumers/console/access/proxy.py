"""Logins by the headers of a trusted reverse proxy."""

from __future__ import annotations

import hmac
from ipaddress import ip_network
from typing import Final

from starlette.datastructures import Headers

from consumers.console.access.login_settings import ProxyLoginSettings, read_secret
from consumers.console.access.private_lines import NAME
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Person
from schemas.errors import ConfigError

SECRET_HEADER: Final = "X-Pointillist-Proxy-Secret"
_SHORTEST_SECRET: Final = 16


class Proxies:
    """The addresses of a network. An address may also be a /64, as `connections.network_of` writes it."""

    def __init__(self, text: str) -> None:
        self._network = ip_network(text)

    def __contains__(self, address: object) -> bool:
        try:
            return isinstance(address, str) and bool(address) and self._network.overlaps(ip_network(address))
        except ValueError:
            return False

    @property
    def need_secret(self) -> bool:
        """Whether others than the proxy may connect from these addresses."""
        return self._network.is_loopback or self._network.num_addresses > 1


class ProxyLogin:
    """Reads who a request is from, if it came from the proxy itself."""

    def __init__(self, settings: ProxyLoginSettings, proxies: str) -> None:
        """`proxies` is the address of the proxy, or the network that it is in. ConfigError without a needed secret."""
        self._settings = settings
        self._proxies = Proxies(proxies)
        if settings.secret_file is None and self._proxies.need_secret:
            raise ConfigError(
                f"proxy_login.secret_file is missing: expected the file of a secret, for behind_proxy is {proxies}, "
                f"where others could send the headers. Set it, and let the proxy send {SECRET_HEADER}."
            )
        self._secret = read_secret(settings.secret_file, "proxy_login.secret_file") if settings.secret_file else None
        if self._secret is not None and len(self._secret) < _SHORTEST_SECRET:
            raise ConfigError(
                f"proxy_login.secret_file: expected at least {_SHORTEST_SECRET} characters, got {len(self._secret)}."
            )

    def person(self, headers: Headers, peer: str) -> Person | None:
        """Return the person; None without headers. Raises RefusedLoginError.

        `peer` is the address at the other end of the connection, never one from a header.
        """
        settings, name_header = self._settings, self._settings.name_header
        names, groups = headers.getlist(name_header), headers.getlist(settings.groups_header)
        if not names and not groups:
            return None
        if not self.is_proxy(peer):
            raise RefusedLoginError(f"{name_header}: expected a request of the proxy, got one from {peer}", 403)
        if not self._has_secret(headers):
            raise RefusedLoginError(f"{SECRET_HEADER}: expected the proxy's secret, got none or another", 403)
        for header, found, least in ((name_header, names, 1), (settings.groups_header, groups, 0)):
            if not least <= len(found) <= 1:
                raise RefusedLoginError(f"{header}: expected exactly one header, got {len(found)}", 403)
        if not NAME.fullmatch(names[0]):
            raise RefusedLoginError(
                f"{name_header}: expected at most 64 letters, digits and . _ @ -, got {names[0][:80]!r}", 403
            )
        roles = settings.roles_of(each.strip() for text in groups for each in text.split(","))
        if roles is None:
            raise RefusedLoginError(
                f"{names[0]}: expected a group with a role in {settings.groups_header}, got none. Ask an admin.", 403
            )
        return Person(names[0], roles)

    def is_proxy(self, peer: str) -> bool:
        """Return whether a connection's address is the proxy's."""
        return peer in self._proxies

    def _has_secret(self, headers: Headers) -> bool:
        given = headers.get(SECRET_HEADER, "")
        return self._secret is None or hmac.compare_digest(given.encode(), self._secret.encode())
