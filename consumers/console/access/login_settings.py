"""Settings of logins by an identity provider and by a trusted proxy."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from consumers.console.access.rights import Right
from schemas.settings import HttpUrl, SettingsTable

EVERYBODY: Final = "*"
"""Value that gives a role to everybody who logs in."""


class GroupRoles(SettingsTable):
    """The role of a person, from groups that others name. Of several roles, the highest applies."""

    viewer: tuple[str, ...] = ()
    """Groups whose members are viewers; * is everybody who logs in."""
    operator: tuple[str, ...] = ()
    """Groups whose members are operators; * is everybody who logs in."""
    admin: tuple[str, ...] = ()
    """Groups whose members are admins; * is everybody who logs in."""

    def right_of(self, groups: Iterable[str]) -> Right | None:
        """Return the role of a member of these groups, None without one."""
        found = {EVERYBODY, *groups}
        given = {Right.VIEWER: self.viewer, Right.OPERATOR: self.operator, Right.ADMIN: self.admin}
        return max((right for right, those in given.items() if found & {*those}), key=list(Right).index, default=None)

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        if not (self.viewer or self.operator or self.admin):
            raise ValueError("expected groups for at least one of viewer, operator and admin, got none.")
        return self


class OpenIdSettings(GroupRoles):
    """Settings of logins by OpenID Connect."""

    issuer: HttpUrl
    """The provider's issuer URL, exactly as its discovery document has it; by https, or at a loopback address."""
    client_id: str = Field(min_length=1)
    """This console's id at the provider."""
    client_secret_file: Path | None = None
    """File with this console's secret at the provider; none is a public client, which PKCE alone protects."""
    url: HttpUrl
    """The console's URL in browsers. Register URL/login/openid/done as redirect URI and URL/login as URI after
    logout."""
    scope: str = "openid profile email"
    """Scopes to request."""
    name_claim: str = "preferred_username"
    """Claim of the ID token with the person's name."""
    role_claim: str = "groups"
    """Claim of the ID token with the person's groups: a list or one text."""
    leeway_s: float = Field(default=60.0, ge=0, le=300)
    """Seconds by which the provider's clock may differ from this machine's."""
    ca_file: Path | None = None
    """Certificate authorities of the provider; none are those of the machine."""

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        if not is_protected(self.issuer):
            raise ValueError(f"issuer: expected an https URL, got {self.issuer[:200]}. ID tokens need TLS.")
        return self


class ProxyLoginSettings(GroupRoles):
    """Settings of logins by the headers of the reverse proxy `behind_proxy`."""

    name_header: str = Field(default="X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$")
    """Header with the person's name. The proxy must remove what visitors send in it."""
    groups_header: str = Field(default="X-Forwarded-Groups", pattern=r"^[A-Za-z0-9-]+$")
    """Header with the person's groups, separated by commas. The proxy must remove what visitors send in it."""


def is_protected(url: str) -> bool:
    """Return whether a URL is https, or of a loopback address."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.scheme == "http" and parts.hostname == "localhost"
