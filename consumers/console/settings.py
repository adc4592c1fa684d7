"""What a console is told."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from consumers.settings import HostName, RecorderSettings
from schemas.topics import KafkaTopic
from schemas.transport.access import Login, Tls


def _proxy(text: str) -> str:
    if ip_network(text).prefixlen == 0:
        raise ValueError("expected the address of one proxy, or its network")
    return text


class Proxies:
    """The addresses of a network, as `consumers.console.access.connections.network_of` writes them."""

    def __init__(self, text: str) -> None:
        self._network = ip_network(text)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and bool(address) and self._network.overlaps(ip_network(address))


Proxy = Annotated[str, AfterValidator(_proxy)]
"""The address of a reverse proxy, or the network that it is in."""


class MqttBroker(BaseModel):
    """Where cameras hear commands."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    host: str
    port: int
    tls: Tls | None = None
    login: Login | None = None


class JobSettings(BaseModel):
    """What jobs of the command line an admin may start from the pages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """The operator lays down `clean.npz`, perhaps `evaluate-clean.npz` and `evaluate-poisoned.npz`, and bundles in
    `bundles/NAME`; each job has a folder in `runs`."""
    bundle: Path | None = None
    """The one that processors serve where none is published."""
    publish: tuple[str, ...] | None = None
    """Arguments of `model publish` behind the bundle; None publishes nothing."""
    rollback: tuple[str, ...] | None = None
    """Arguments of `model rollback`."""
    repair_s: float = 4 * 3600.0
    """A repair that takes longer is stopped."""
    model_s: float = 600.0
    """And what publishes or rolls back."""


class ConsoleSettings(BaseModel):
    """Settings of `pointillist console`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recorder: RecorderSettings
    """Of the recorder whose database, quarantine and Kafka are read; the console writes to none of them."""
    store: str
    """An SQLAlchemy URL of the console's own: roll-ups, what people did, what they said of alerts."""
    listen: tuple[str, int]
    """Port 0 takes a free one."""
    tls: Path | None = None
    """A folder with `tls.crt` and `tls.key`: HTTPS."""
    served_as: tuple[HostName, ...] = ()
    """Names of hosts that the console answers to, besides the address itself."""
    behind_proxy: Proxy | None = None
    """The only address whose `X-Forwarded-For` and `X-Forwarded-Proto` count."""
    users: Path | None = None
    """Who may log in; None lets everybody in who reaches a loopback address."""
    mqtt: MqttBroker | None = None
    """None tells cameras nothing."""
    trust: Path | None = None
    """The signers whose published models are believed."""
    models_topic: str = KafkaTopic.MODELS.value
    jobs: JobSettings | None = None
    """None starts none."""
    prometheus: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$")] | None = None
    """Its base URL; None draws the system from the recorder's own history."""
    runbooks: Path | None = None
    """A file with the runbooks as HTML, to which alerts lead; None serves none."""
    page_cards: int = 60
    """Cameras on one page of the fleet."""
    tick_s: float = 0.2
    """What changed is shown so often."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_local(self.listen[0])


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens at `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
