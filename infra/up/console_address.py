"""The console's address under `up`: HTTPS or HTTP, the certificate, and the URL for browsers."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import psutil

from consumers.console.access.login_settings import is_local
from consumers.console.access.proxy import ProxyLogin
from consumers.console.access.users import read_users
from consumers.console.settings import is_shared
from infra.pki.authority import LOCAL_HOSTS
from infra.pki.roles import role_folder
from infra.state_folder import Layout
from infra.up.settings import UpSettings
from schemas.errors import ConfigError
from schemas.settings import address
from schemas.transport.access import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, server_context

CERTIFICATE: Final = "pages"
"""The role of the authority whose certificate the console serves to other machines."""
_NAME: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_ELSEWHERE: Final = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))
"""Documentation addresses (RFC 5737, RFC 3849): connecting a datagram socket sends nothing to them."""


def check_console(settings: UpSettings, layout: Layout) -> None:
    """Raise ConfigError, before anything runs, for an address, a certificate or users that the console would reject."""
    if settings.http_tls is not None:
        server_context(settings.http_tls / CERTIFICATE_FILE, settings.http_tls / KEY_FILE)
    if settings.console.proxy_login is not None and settings.behind_proxy is None:
        raise ConfigError("--behind-proxy is missing: console.proxy_login requires the address of the proxy. Set it.")
    if settings.console.proxy_login is not None and settings.behind_proxy is not None:
        ProxyLogin(settings.console.proxy_login, settings.behind_proxy)
    if settings.plain and is_by_https(settings) and settings.http_tls is None:
        raise ConfigError(
            f"--http: expected --http-tls, --behind-proxy or --http-plain for {settings.http} with --plain, got "
            "none of them. Give one: else passwords would be sent unencrypted."
        )
    console = settings.console.model_copy(update={"http": _address(settings), "behind_proxy": settings.behind_proxy})
    users = console.users or layout.users
    if console.users is not None or users.is_file():
        read_users(users, required=not console.has_other_logins)
    elif console.needs_users:
        raise ConfigError(
            f"{layout.users} is missing: a console at {settings.http or 'a proxy'} needs users. Run "
            f"`pointillist user add NAME {layout.state_option}`, or set console.openid or console.proxy_login."
        )


def is_by_https(settings: UpSettings) -> bool:
    """Return whether the console itself speaks TLS."""
    if settings.http_tls is not None:
        return True
    return not (is_local(_host(settings)) or settings.http_plain or settings.behind_proxy is not None)


def certificate_folder(settings: UpSettings, layout: Layout) -> Path | None:
    """Return the folder of the console's certificate; None without TLS."""
    if not is_by_https(settings):
        return None
    return settings.http_tls or role_folder(layout.pki, CERTIFICATE)


def advice(settings: UpSettings, layout: Layout) -> str | None:
    """Return the notes on the console's address for the user."""
    if certificate_hosts(settings):
        return (
            f"browsers do not trust the console's certificate yet: import this fleet's authority, "
            f"{layout.pki / AUTHORITY_FILE}, or give another certificate by --http-tls DIR"
        )
    if _is_shared(settings) and not is_by_https(settings) and settings.behind_proxy is None:
        return "--http-plain: passwords and sessions of the console are sent unencrypted, by plain HTTP"
    return None


def certificate_hosts(settings: UpSettings) -> tuple[str, ...]:
    """Return the names and addresses that the fleet's own certificate for the console must name, none without one."""
    if settings.http_tls is not None or not is_by_https(settings):
        return ()
    host = _host(settings)
    own = (host,) if not _is_any(host) else (*own_names(), *own_addresses())
    openid = settings.console.openid
    return tuple(dict.fromkeys((*LOCAL_HOSTS, *own, *settings.allowed_host, *((openid.host,) if openid else ()))))


def console_url(settings: UpSettings, listen: str) -> str:
    """Return the URL at which a browser finds the console that listens at `listen`, host:port."""
    scheme = "https" if is_by_https(settings) else "http"
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if settings.allowed_host and _is_shared(settings):
        host = settings.allowed_host[0]
    elif _is_any(host):
        host = _main_address() or "localhost"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def allowed_host(settings: UpSettings) -> tuple[str, ...]:
    """Return the host names that the console answers to: the given ones, and this machine's where it listens on all
    addresses."""
    own = own_names() if _is_any(_host(settings)) else ()
    return tuple(dict.fromkeys((*settings.allowed_host, *own)))


def own_names() -> tuple[str, ...]:
    """Return the names of this machine."""
    found = dict.fromkeys((socket.gethostname(), socket.getfqdn()))
    return tuple(name for name in found if _NAME.fullmatch(name))


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this machine that others reach it by."""
    found = []
    for each in psutil.net_if_addrs().values():
        for one in each:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                ip = ip_address(one.address.partition("%")[0])
                if not (ip.is_loopback or ip.is_link_local):
                    found.append(str(ip))
    return tuple(sorted(found))


def _main_address() -> str | None:
    """Return this machine's address towards others."""
    for elsewhere, family in _ELSEWHERE:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    return next(iter(own_addresses()), None)


def _is_shared(settings: UpSettings) -> bool:
    return is_shared(_host(settings), settings.behind_proxy)


def _address(settings: UpSettings) -> tuple[str, int]:
    return ("127.0.0.1", 0) if settings.http is None else address(settings.http)


def _host(settings: UpSettings) -> str:
    return _address(settings)[0]


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
