"""Settings of a console."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from consumers.console.access.login_settings import OpenIdSettings, ProxyLoginSettings
from consumers.settings import DAY_S, Bounds, HostName, RecordsSettings
from schemas.settings import HostPort, HttpUrl, MqttSettings, RoleSettings, SettingsTable
from schemas.topics import KafkaTopic


def _proxy(text: str) -> str:
    if ip_network(text).prefixlen == 0:
        raise ValueError(f"expected the address of one proxy or its network, got {text}, which is everybody.")
    return text


class Proxies:
    """The addresses of a network, as `consumers.console.access.connections.network_of` writes them."""

    def __init__(self, text: str) -> None:
        self._network = ip_network(text)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and bool(address) and self._network.overlaps(ip_network(address))


Proxy = Annotated[str, AfterValidator(_proxy)]
"""The address of a reverse proxy, or the network that it is in."""


class JobSettings(SettingsTable):
    """Settings of the jobs of the command line that an admin may start from the pages."""

    folder: Path
    """Folder of the jobs. The operator puts clean.npz, optionally evaluate-clean.npz and evaluate-poisoned.npz, and
    bundles in bundles/NAME there; each job has a folder in runs."""
    bundle: Path | None = None
    """Bundle that the processors serve while none is published."""
    signer: Path | None = None
    """File of the private key that jobs sign with; none publishes nothing and rolls nothing back."""
    models: str | None = None
    """Folder or URL that bundles are published to and that every processor can read; none is in the state folder."""
    admin_tls: Path | None = None
    """Folder of the certificate that these jobs connect to Kafka with; none is that of the state folder."""
    admin_login_file: Path | None = None
    """File with user:password that these jobs connect to Kafka with."""
    publish: tuple[str, ...] | None = None
    """Arguments of `model publish` after the bundle; none are those that fit the settings above."""
    rollback: tuple[str, ...] | None = None
    """Arguments of `model rollback`; none are those that fit the settings above."""
    repair_s: float = Field(default=4 * 3600.0, gt=0)
    """Seconds after which a repair is stopped."""
    model_s: float = Field(default=600.0, gt=0)
    """Seconds after which a publication or a rollback is stopped."""


class ConsoleBounds(Bounds):
    """Bounds of the recorder's stores, and of the console's own."""

    clip_bytes: int = Field(default=256 * 2**20, ge=0)
    """Bytes of kept clips: those of alerts go first, and of these the oldest of the camera with the most bytes."""
    clip_age_s: float = Field(default=30 * DAY_S, gt=0)
    """Age of kept clips, in seconds."""


class ConsoleSettings(RoleSettings, MqttSettings, RecordsSettings):
    """Settings of `pointillist console`. Kafka, database and quarantine are the recorder's, and only read.

    Without `kept_files`, the console's own files are in the quarantine.
    """

    bounds: ConsoleBounds = ConsoleBounds()
    http: HostPort = ("127.0.0.1", 8080)
    """Address of the pages; port 0 takes a free one. Where other machines reach it, it needs `users`, `openid` or
    `proxy_login`."""
    http_tls: Path | None = None
    """Folder with tls.crt and tls.key: the pages by HTTPS."""
    allowed_host: tuple[HostName, ...] = ()
    """Host names that the console answers to, besides its address."""
    behind_proxy: Proxy | None = None
    """Address or network of a reverse proxy, which speaks TLS: only its X-Forwarded-For and X-Forwarded-Proto are
    trusted. It needs `users`, `openid` or `proxy_login`."""
    users: Path | None = None
    """File of the users, as `pointillist user` writes it; none is that of the state folder."""
    tokens: Path | None = None
    """File of the API tokens, as `pointillist token` writes it; none is that of the state folder."""
    openid: OpenIdSettings | None = None
    """Logins by an identity provider (OpenID Connect)."""
    proxy_login: ProxyLoginSettings | None = None
    """Logins by headers of `behind_proxy`."""
    owner_file: Path | None = None
    """File with the token of the user who runs the console, new at each start. On loopback without logins, visitors
    read, and everything else needs it. None is that of the state folder, or none."""
    store: str = ""
    """SQLAlchemy URL of the console's own database; empty is SQLite in the state folder."""
    kept_files: str = ""
    """Folder of the console's own files, or any URL that fsspec opens: sealed clips and frames to label. Empty is the
    quarantine, where the console needs the right to write."""
    trust: Path | None = None
    """File of the trusted signers, a line `ssh-ed25519 BASE64 NAME` each; none is that of the state folder."""
    jobs: JobSettings | None = None
    prometheus: HttpUrl | None = None
    """Base URL of Prometheus, http://host:port; none draws the System page from the recorder's own history."""
    runbooks: Path | None = None
    """HTML file with the runbooks that alerts link to; none is the shipped one."""
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
        return self.users is not None or self.openid is not None or self.proxy_login is not None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_local(self.http[0])


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
