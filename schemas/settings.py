"""Settings that several roles share: the state folder, and the addresses and credentials of the brokers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from schemas.errors import ConfigError
from schemas.transport.access import KafkaAddress, MqttAccess, MqttAddress, mqtt_access

UNITS: Final = {
    "bytes": {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
    "s": {"min": 60, "h": 3_600, "d": 86_400},
}
"""Units that a value may have, by the last word of the setting's name. A value without a unit is in bytes or
seconds."""
_PORT: Final = re.compile("[0-9]{1,5}")
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)")


class SettingsTable(BaseModel):
    """A table of settings: immutable, and without keys that it does not define.

    A text such as `64MiB` or `7d` is accepted for a number of bytes or of seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _convert_units(cls, value: object, field: ValidationInfo) -> object:
        found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        name = (field.field_name or "").removesuffix("_per_s")
        unit = UNITS.get(name.rpartition("_")[2], {}).get(found[2]) if found else None
        if found is None or unit is None:
            return value
        quantity = float(found[1]) * unit
        return int(quantity) if quantity.is_integer() else quantity


def _is_address(host: str, port: str) -> bool:
    """Return whether a resolver accepts the host, and the port is one: a resolver's error for `a..b` is no OSError."""
    try:
        return bool(host.encode("idna") and _PORT.fullmatch(port)) and int(port) <= 65_535
    except UnicodeError:
        return False


def address(text: str) -> tuple[str, int]:
    """Read host:port; `ConfigError` gives the expected form, and never a password."""
    if "@" in text:
        raise ConfigError("address: expected host:port without a user and a password, got one with an @. Remove them.")
    host, _, port = text.rpartition(":")
    if not _is_address(host, port) or not int(port):
        raise ConfigError(f"address: expected host:port with a port from 1 to 65535, got {text!r}. Correct it.")
    return host.strip("[]"), int(port)


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    if not _is_address(host, port):
        raise ValueError(f"expected host:port, got {value.rpartition('@')[2]!r}. Correct the address.")
    return host.strip("[]"), int(port)


def format_address(place: tuple[str, int]) -> str:
    """Return a host and a port as `host:port`, with brackets around an IPv6 address."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _checked_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", text):
        shown = text.rpartition("@")[2].rpartition("://")[2][:80]
        raise ValueError(f"expected http://host:port or https://host:port, got {shown!r}. Correct the URL.")
    return text


HttpUrl = Annotated[str, AfterValidator(_checked_url)]
"""The URL of a server, without a user and a password."""
HostPort = Annotated[tuple[str, int], BeforeValidator(_parsed), PlainSerializer(format_address)]
"""An address to listen at, written host:port."""


class RoleSettings(SettingsTable):
    """Settings of every role."""

    state: Path | None = None
    """State folder of a running system: the role takes brokers, certificates and secrets from it."""
    metrics: str | None = None
    """Address host:port at which the role serves /metrics and /healthz. Default: it serves neither."""
    connect_timeout_s: float = Field(default=10.0, ge=0)
    """Seconds to wait at the start for a broker or a database; 0 waits without limit."""


class TracingSettings(SettingsTable):
    """Settings of a role on a frame's way: where it sends its spans of sampled frames."""

    tracing: HttpUrl | None = None
    """URL of an OpenTelemetry collector (OTLP over HTTP), such as http://localhost:4318. Default: no spans are
    recorded. Requires `pointillist[tracing]`. The variable POINTILLIST_TRACING sets it for all roles."""


class SamplingSettings(TracingSettings):
    """Settings of cameras, which decide whether a frame is traced."""

    tracing_share: float = Field(default=0.01, ge=0, le=1)
    """Share of a camera's frames that are traced, if tracing is set: at most 10 frames a second of a camera and 100 of
    a process. The variable POINTILLIST_TRACING_SHARE sets it for all cameras."""


class KafkaSettings(SettingsTable):
    """Settings of a Kafka client."""

    kafka: KafkaAddress = ""
    """Kafka bootstrap servers as host:port,host:port. Default: those of the state folder."""
    kafka_tls: Path | None = None
    """Folder with ca.crt and, for a client certificate, tls.crt and tls.key. Default: as the state folder requires;
    without one, no TLS. The variable POINTILLIST_KAFKA_TLS sets it for all roles."""
    kafka_login_file: Path | None = None
    """File with user:password for SCRAM-SHA-512; `-` is standard input. The variable POINTILLIST_KAFKA_LOGIN_FILE sets
    it for all roles; POINTILLIST_KAFKA_LOGIN holds user:password itself."""


class MqttSettings(SettingsTable):
    """Settings of an MQTT client."""

    mqtt: MqttAddress = ""
    """MQTT broker as host:port or mqtts://host:port. Default: that of the state folder or, for a camera, of its
    enrolment."""
    mqtt_tls: Path | None = None
    """Folder with ca.crt and, for a client certificate, tls.crt and tls.key. Default: as the state folder or a camera's
    enrolment requires; without both, no TLS. The variable POINTILLIST_MQTT_TLS sets it for all roles."""
    mqtt_login_file: Path | None = None
    """File with user:password; `-` is standard input. The variable POINTILLIST_MQTT_LOGIN_FILE sets it for all roles;
    POINTILLIST_MQTT_LOGIN holds user:password itself."""

    @property
    def broker(self) -> MqttAccess:
        """The MQTT broker and the means to reach it."""
        return mqtt_access(self.mqtt)
