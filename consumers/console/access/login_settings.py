"""Settings of logins by an identity provider and by a trusted proxy."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from consumers.console.access.rights import EVERYWHERE, ROLES_FORM, Right, Roles
from schemas.errors import ConfigError
from schemas.settings import HttpUrl, SettingsTable

EVERYBODY: Final = "*"
"""Group of everybody who logs in."""


class GroupRoles(SettingsTable):
    """The roles of a person, from groups that others name.

    If several roles cover a site, the highest applies. A role for all sites counts too.
    """

    viewer: tuple[str, ...] = ()
    """Groups whose members are viewers of all sites; * is everybody who logs in."""
    operator: tuple[str, ...] = ()
    """Groups whose members are operators of all sites; * is everybody who logs in."""
    admin: tuple[str, ...] = ()
    """Groups whose members are admins of all sites; * is everybody who logs in."""
    sites: dict[str, str] = Field(default={})
    """Roles by site of a group's members, such as `north=operator,south=viewer`, by the group's name."""

    def roles_of(self, groups: Iterable[str]) -> Roles | None:
        """Return the roles of a member of these groups, None without one."""
        found = {EVERYBODY, *groups}
        given = {Right.VIEWER: self.viewer, Right.OPERATOR: self.operator, Right.ADMIN: self.admin}
        pairs = [(EVERYWHERE, right) for right, those in given.items() if found & {*those}]
        pairs += [pair for group in found & self.sites.keys() for pair in Roles.parse(self.sites[group]).by_site]
        return Roles.of(pairs) if pairs else None

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        if not (self.viewer or self.operator or self.admin or self.sites):
            raise ValueError("expected groups for at least one of viewer, operator, admin and sites, got none.")
        for group, text in self.sites.items():
            try:
                Roles.parse(text)
            except ValueError as error:
                raise ValueError(f"sites.{group}: expected {ROLES_FORM}, got {text[:80]!r}: {error}.") from None
        return self


class OpenIdSettings(GroupRoles):
    """Settings of logins by OpenID Connect."""

    issuer: HttpUrl
    """The provider's issuer URL, exactly as its discovery document has it; by https, or at a loopback address."""
    client_id: str = Field(min_length=1)
    """This console's id at the provider."""
    client_secret_file: Path | None = None
    """File with this console's secret at the provider. Default: no secret; the console is a public client, protected by
    PKCE alone."""
    url: HttpUrl
    """The console's URL in browsers, by https or at a loopback address. Register URL/login/openid/done as redirect URI
    and URL/login as URI after logout."""
    scope: str = "openid profile email"
    """Scopes to request."""
    name_claim: str = "preferred_username"
    """Claim of the ID token with the person's name."""
    role_claim: str = "groups"
    """Claim of the ID token with the person's groups: a list or one text."""
    leeway_s: float = Field(default=60.0, ge=0, le=300)
    """Seconds by which the provider's clock may differ from this machine's."""
    ca_file: Path | None = None
    """File with the certificate authorities of the provider. Default: those of the machine."""

    @property
    def host(self) -> str:
        """The console's host name in browsers."""
        return urlsplit(self.url).hostname or ""

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        if not is_protected(self.issuer):
            raise ValueError(f"issuer: expected an https URL, got {self.issuer[:200]}. ID tokens need TLS.")
        if not is_protected(self.url):
            raise ValueError(f"url: expected an https URL, got {self.url[:200]}. Codes and sessions need TLS.")
        return self


class ProxyLoginSettings(GroupRoles):
    """Settings of logins by the headers of the reverse proxy `behind_proxy`."""

    name_header: str = Field(default="X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$")
    """Header with the person's name. The proxy must remove what visitors send in it."""
    groups_header: str = Field(default="X-Forwarded-Groups", pattern=r"^[A-Za-z0-9-]+$")
    """Header with the person's groups, separated by commas. The proxy must remove what visitors send in it."""
    secret_file: Path | None = None
    """File with the secret, at least 16 characters, that the proxy sends in the header X-Pointillist-Proxy-Secret. It
    is required if `behind_proxy` is a loopback address or a network: others there could send the headers too."""


def read_secret(file: Path, setting: str) -> str:
    """Return the secret in a file. Raises ConfigError that names the setting."""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: expected a readable file, got {error}. Correct it.") from None


def is_protected(url: str) -> bool:
    """Return whether a URL is https, or of a loopback address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_local(parts.hostname or "")


def is_local(host: str) -> bool:
    """Return whether only this machine reaches what listens at `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
