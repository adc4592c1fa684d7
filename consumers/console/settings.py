"""Settings of a console."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, model_validator

from consumers.console.access.login_settings import OpenIdSettings, ProxyLoginSettings, is_local, is_protected
from consumers.settings import DAY_S, Age, Bounds, HostName, RecordsSettings
from schemas.identity import SITE_NAME
from schemas.settings import HostPort, HttpUrl, MqttSettings, RoleSettings, SettingsTable
from schemas.topics import KafkaTopic


def _proxy(text: str) -> str:
    if ip_network(text).prefixlen == 0:
        raise ValueError(f"expected the address of one proxy or its network, got {text}, which is everybody.")
    return text


Proxy = Annotated[str, AfterValidator(_proxy)]
"""The address of a reverse proxy, or the network that it is in."""


def _site(text: str) -> str:
    if not SITE_NAME.fullmatch(text):
        raise ValueError(f"expected a site of a-z 0-9 _ . -, got {text[:80]!r}.")
    return text


SiteName = Annotated[str, AfterValidator(_site)]
"""The name of a site."""
MOST_SITES: Final = 32
"""Maximum number of sites that a console reads from other consoles."""


def _protected(url: str) -> str:
    if not is_protected(url):
        raise ValueError(f"expected an https URL, got {url[:200]}. Tokens need TLS.")
    return url


ProtectedUrl = Annotated[HttpUrl, AfterValidator(_protected)]
"""The URL of a server, by https or at a loopback address."""


class SiteSettings(SettingsTable):
    """Settings of a site that another console shows."""

    url: ProtectedUrl
    """URL of that console, by https or at a loopback address. Browsers of this console's visitors follow it too."""
    token_file: Path
    """File with an API token of that console with the role viewer. It is read before each poll."""
    ca_file: Path | None = None
    """File with the certificate authorities of that console. Default: those of the machine."""
    name_there: SiteName | None = None
    """Name of the site at that console. Default: its name here."""


class JobSettings(SettingsTable):
    """Settings of the jobs of the command line that an admin may start from the pages."""

    folder: Path
    """Folder of the jobs. The operator puts clean.npz, optionally evaluate-clean.npz and evaluate-poisoned.npz, and
    bundles in bundles/NAME there; each job has a folder in runs."""
    bundle: Path | None = None
    """Bundle that the processors serve while none is published."""
    signer: Path | None = None
    """File of the private key with which jobs sign. Default: no key, and jobs cannot publish or roll back."""
    models: str | None = None
    """Folder or URL for published bundles, which every processor can read. Default: in the state folder."""
    admin_tls: Path | None = None
    """Folder of the certificate with which these jobs connect to Kafka. Default: the admin's certificate in the state
    folder."""
    admin_login_file: Path | None = None
    """File with user:password with which these jobs connect to Kafka."""
    publish: tuple[str, ...] | None = None
    """Arguments of `model publish` after the bundle. Default: derived from the settings above."""
    rollback: tuple[str, ...] | None = None
    """Arguments of `model rollback`. Default: derived from the settings above."""
    repair_s: float = Field(default=4 * 3600.0, gt=0)
    """Seconds after which a repair is stopped."""
    model_s: float = Field(default=600.0, gt=0)
    """Seconds after which a publication or a rollback is stopped."""


class ConsoleBounds(Bounds):
    """Bounds of the recorder's stores, and of the console's own."""

    clip_bytes: int = Field(default=256 * 2**20, ge=0)
    """Maximum bytes of kept clips. Clips of sightings are deleted first, then clips of alerts; of each kind, the oldest
    clip of the camera with the most bytes."""
    clip_age_s: Age = 30 * DAY_S
    """Maximum age of kept clips, in seconds."""


class ConsoleSettings(RoleSettings, MqttSettings, RecordsSettings):
    """Settings of `pointillist console`. Kafka, database and quarantine are the recorder's.

    The console writes replays and views to Kafka, and mutes and sighting rules to the database.

    Without `kept_files`, the console's own files are in the quarantine.
    """

    bounds: ConsoleBounds = ConsoleBounds()
    http: HostPort = ("127.0.0.1", 8080)
    """Address of the pages; port 0 takes a free one. An address that other machines reach requires `users`, `openid` or
    `proxy_login`."""
    http_tls: Path | None = None
    """Folder with tls.crt and tls.key, to serve the pages by HTTPS."""
    allowed_host: tuple[HostName, ...] = ()
    """Host names that the console accepts in requests, besides its address."""
    behind_proxy: Proxy | None = None
    """Address or network of a reverse proxy that terminates TLS. The headers X-Forwarded-For and X-Forwarded-Proto are
    trusted only if it sends them. Requires `users`, `openid` or `proxy_login`."""
    users: Path | None = None
    """File of the users, as `pointillist user` writes it. Default: the file in the state folder."""
    tokens: Path | None = None
    """File of the API tokens, as `pointillist token` writes it. Default: the file in the state folder."""
    openid: OpenIdSettings | None = None
    """Logins by an identity provider (OpenID Connect)."""
    proxy_login: ProxyLoginSettings | None = None
    """Logins by headers of `behind_proxy`."""
    owner_file: Path | None = None
    """File with the token of the user who runs the console, new at each start. On a loopback address without logins,
    visitors may only read; everything else requires this token. Default: the file in the state folder; without a state
    folder, no token."""
    store: str = ""
    """SQLAlchemy URL of the console's own database. Default: SQLite in the state folder."""
    kept_files: str = ""
    """Folder of the console's own files (sealed clips and frames to label), or any URL that fsspec opens. Default: the
    quarantine, to which the console then needs write access."""
    trust: Path | None = None
    """File of the trusted signers, one line `ssh-ed25519 BASE64 NAME` for each. Default: the file in the state
    folder."""
    jobs: JobSettings | None = None
    """Jobs of the command line that an admin may start from the pages. Default: no jobs."""
    prometheus: HttpUrl | None = None
    """Base URL of Prometheus, http://host:port. Default: the page *System* shows the recorder's own history."""
    sites: dict[SiteName, SiteSettings] = Field(default={}, max_length=MOST_SITES)
    """Sites that other consoles show, by their names here. No camera of this console may belong to such a site."""
    runbooks: Path | None = None
    """HTML file with the runbooks that alerts link to. Default: the shipped file."""
    page_cards: int = Field(default=60, ge=1)
    """Cameras on one page of the fleet."""
    tick_s: float = Field(default=0.2, gt=0)
    """Seconds between two updates of the pages."""

    models_topic: ClassVar[str] = KafkaTopic.MODELS.value
    views_topic: ClassVar[str] = KafkaTopic.VIEWS.value

    @model_validator(mode="after")
    def _check_store_of_models(self) -> Self:
        jobs = self.jobs
        if jobs is not None and jobs.signer is not None and jobs.models is None and self.state is None:
            raise ValueError(
                "jobs.models is missing: expected a folder or URL that every processor can read, next to jobs.signer. "
                "Set jobs.models, or state."
            )
        return self

    @property
    def logs_in(self) -> bool:
        """Whether people log in."""
        return self.users is not None or self.has_other_logins

    @property
    def has_other_logins(self) -> bool:
        """Whether people can log in without a password of ours."""
        return self.openid is not None or self.proxy_login is not None

    @property
    def own_hosts(self) -> tuple[str, ...]:
        """The host names that the console answers to, besides its address."""
        return (*self.allowed_host, *((self.openid.host,) if self.openid is not None else ()))

    @property
    def needs_users(self) -> bool:
        """Whether the console needs a file with users: others reach it, and people have no other login."""
        return is_shared(self.http[0], self.behind_proxy) and not self.has_other_logins


def is_shared(host: str, behind_proxy: str | None) -> bool:
    """Return whether other machines reach what listens at `host`."""
    return behind_proxy is not None or not is_local(host)
