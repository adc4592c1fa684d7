"""The login methods of a console, from its settings."""

from __future__ import annotations

from collections.abc import Callable

from consumers.console.access.logins import LoginMethods
from consumers.console.access.openid import OpenIdLogin
from consumers.console.access.owner import OwnerToken, remove_token
from consumers.console.access.proxy import ProxyLogin
from consumers.console.access.tokens import Tokens
from consumers.console.access.users import Users
from consumers.console.settings import ConsoleSettings
from schemas.errors import ConfigError


def open_login_methods(settings: ConsoleSettings, clock_s: Callable[[], float]) -> LoginMethods:
    """Open the login methods. Raises ConfigError for missing settings and files, StateError for the owner's file."""
    users, openid, proxy, address = settings.users, settings.openid, settings.proxy_login, settings.behind_proxy
    if settings.needs_users and users is None:
        raise ConfigError(
            f"users is missing: expected a file of users where others reach the console, at {settings.http[0]}. "
            "`pointillist user add NAME` makes it. Or set openid or proxy_login."
        )
    if proxy is not None and address is None:
        raise ConfigError("behind_proxy is missing: expected the proxy's address next to proxy_login. Set it.")
    return LoginMethods(
        Users(users, required=not settings.has_other_logins) if users is not None else None,
        OpenIdLogin(openid, clock_s) if openid is not None else None,
        ProxyLogin(proxy, address) if proxy is not None and address is not None else None,
        Tokens(settings.tokens) if settings.tokens is not None else None,
        _owner(settings),
    )


def _owner(settings: ConsoleSettings) -> OwnerToken | None:
    if settings.owner_file is None:
        return None
    if settings.logs_in:
        remove_token(settings.owner_file)
        return None
    return OwnerToken(settings.owner_file)
