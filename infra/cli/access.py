"""Access of commands to the brokers: from options, the environment, or a state folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from pydantic import SecretStr

from infra.settings.variable import resolve
from schemas.errors import ConfigError, SecretError

if TYPE_CHECKING:
    from infra.preflight.kafka_rights import Role
    from infra.state_folder import Layout
    from schemas.identity import CameraId
    from schemas.settings import RoleSettings
    from schemas.transport.access import KafkaAddress, Login, MqttAccess, Tls

_TLS = "Folder for TLS: ca.crt (the authority to trust) and, for a client certificate, tls.crt and tls.key."
_LOGIN = "File with user:password; - is standard input."
Mqtt = Annotated[str | None, typer.Option(help="MQTT broker as host:port, or mqtts://host:port.")]
MqttTls = Annotated[Path | None, typer.Option(help=f"{_TLS} POINTILLIST_MQTT_TLS sets it too.")]
MqttLogin = Annotated[
    Path | None, typer.Option("--mqtt-login-file", help=f"{_LOGIN} POINTILLIST_MQTT_LOGIN(_FILE) sets it too.")
]
Kafka = Annotated[str | None, typer.Option(help="Kafka bootstrap servers as host:port,host:port.")]
KafkaTls = Annotated[Path | None, typer.Option(help=f"{_TLS} POINTILLIST_KAFKA_TLS sets it too.")]
KafkaLogin = Annotated[
    Path | None,
    typer.Option("--kafka-login-file", help=f"{_LOGIN} For SCRAM-SHA-512. POINTILLIST_KAFKA_LOGIN(_FILE) sets it too."),
]
ConnectTimeout = Annotated[
    float,
    typer.Option(
        "--connect-timeout-s",
        help="Seconds to wait at the start for a broker or a database; 0 waits without limit.",
        min=0,
    ),
]
CONNECT_TIMEOUT_S = 10.0
State = Annotated[
    Path | None, typer.Option(help="State folder of the running system, from which brokers and secrets are read.")
]
KafkaState = Annotated[
    Path | None,
    typer.Option(help="State folder of a running system. Default: .pointillist, unless --kafka is given."),
]
MQTT: Final = ("mqtt", "mqtt_tls", "mqtt_login_file")
KAFKA: Final = ("kafka", "kafka_tls", "kafka_login_file")
"""Settings of a broker's client that have an option."""
DEFAULT_STATE: Final = Path(".pointillist")
"""The state folder of `up`, which commands use if none is named."""
Joined = TypeVar("Joined", bound="RoleSettings")


@dataclass(frozen=True)
class KafkaOptions:
    """Options of a command that administers Kafka. Without any, it is Kafka of the usual state folder."""

    state: KafkaState = None
    kafka: Kafka = None
    kafka_tls: KafkaTls = None
    kafka_login: KafkaLogin = None

    def __post_init__(self) -> None:
        """Use the usual state folder if neither a folder nor a Kafka is given."""
        if self.state is None and self.kafka is None:
            object.__setattr__(self, "state", DEFAULT_STATE)

    @property
    def place(self) -> KafkaAddress:
        """Kafka for the user `admin`."""
        return kafka_place(self.kafka, self.state, "admin", tls=self.kafka_tls, login=self.kafka_login)


def existing_layout(state: Path) -> Layout:
    """Return the layout of a state folder. Raises StateError if there is no such folder, or as `check_owner` does."""
    from infra.local.private_folder import check_owner
    from infra.local.role_table import no_state_folder
    from infra.state_folder import Layout

    if not state.is_dir():
        raise no_state_folder(state)
    check_owner(state)
    return Layout(state.resolve())


def text_of(file: Path) -> str:
    """Return the text of a file; of `-`, which is standard input, its first line. Raises OSError, UnicodeDecodeError.

    Standard input is read by a line, so that a terminal's user does not have to close it.
    """
    if str(file) != "-":
        return file.read_text()
    return "" if sys.stdin is None else sys.stdin.readline()


def console_store(given: str, state: Path | None) -> str:
    """Return the URL of the console's own database: `given`, or that of the state folder; empty without both.

    Raises ConfigError for a `given` one that is no URL of a database.
    """
    from consumers.database.engine import database_url
    from infra.state_folder import Layout

    if found := resolve(given):
        database_url(found)
        return found
    return Layout(state.resolve()).console_store if state is not None else ""


def mqtt_place(
    given: str | None,
    state: Path | None,
    own: str | Tls | None,
    *,
    tls: Path | None = None,
    login: Path | None = None,
) -> MqttAccess:
    """Return the broker of the options, the environment, or the state folder that holds a certificate for `own`.

    `own` is a role. Files that were read already, or None for no files, may replace it: then the state folder is not
    searched.
    """
    from infra.state_folder.environment import Environment
    from schemas.settings import address
    from schemas.transport.access import MqttAccess

    environment = Environment()
    text = resolve(_address(given, state, "mosquitto"))
    scheme, _, rest = text.rpartition("://")
    if scheme not in ("", "mqtt", "mqtts"):
        raise ConfigError(f"--mqtt: expected host:port or mqtts://host:port, got the scheme {scheme}://. Correct it.")
    found = _tls(tls or environment.mqtt_tls, state, own) if isinstance(own, str) else own
    if scheme == "mqtts" and found is None:
        from schemas.transport.access import Tls

        found = Tls(None)
    if scheme == "mqtt" and found is not None:
        raise ConfigError("--mqtt: expected mqtts://host:port with files for TLS, got mqtt://. Correct it.")
    secret = _login(login or environment.mqtt_login_file, environment.mqtt_login)
    if found is not None:
        found.context()  # report faults of the files now
    if secret is not None and found is None:
        raise ConfigError(
            "mqtt_tls is missing: a password is sent to the MQTT broker only by TLS. Set mqtt_tls to the folder of "
            "ca.crt."
        )
    return MqttAccess(*address(rest), found, secret)


def kafka_place(
    given: str | None, state: Path | None, role: str, *, tls: Path | None = None, login: Path | None = None
) -> KafkaAddress:
    """Return Kafka of the options, the environment, or the state folder that holds a certificate for `role`."""
    from infra.state_folder.environment import Environment
    from schemas.settings import address
    from schemas.transport.access import KafkaAccess

    environment = Environment()
    bootstrap = _address(given, state, "kafka")
    for place in bootstrap.split(","):
        address(place)
    found = _tls(tls or environment.kafka_tls, state, role)
    secret = _login(login or environment.kafka_login_file, environment.kafka_login)
    if found is None:
        if secret is not None:
            raise ConfigError(
                "kafka_tls is missing: a password is sent to Kafka only by TLS. Set kafka_tls to the folder of ca.crt."
            )
        return bootstrap
    found.context()  # report faults of the files now
    return KafkaAccess(bootstrap, found, secret)


def resolved(settings: Joined, own: str) -> Joined:
    """Return a role's settings with its brokers: their addresses, and the role's certificates and passwords.

    `own` names the role's certificate in the state folder. Raises ConfigError when a broker or a file is missing.
    """
    from schemas.settings import KafkaSettings, MqttSettings

    client: object = settings  # a role is a client of either broker, or of both
    found: dict[str, Any] = {}
    if isinstance(client, KafkaSettings):
        kafka, files = str(client.kafka), {"tls": client.kafka_tls, "login": client.kafka_login_file}
        found["kafka"] = kafka_place(kafka, settings.state, own, **files)
    if isinstance(client, MqttSettings):
        mqtt, files = str(client.mqtt), {"tls": client.mqtt_tls, "login": client.mqtt_login_file}
        found["mqtt"] = mqtt_place(mqtt, settings.state, own, **files)
    return settings.model_copy(update=found)


def require_brokers(
    wait_s: float,
    mqtt: MqttAccess | None = None,
    kafka: KafkaAddress | None = None,
    database: str | None = None,
    *,
    role: Role | None = None,
    groups: Sequence[str] = (),
) -> None:
    """Check that the brokers and the `database` at that URL answer and accept us, unless `wait_s` is 0.

    With a `role`, also check that Kafka authorises its work and its `groups`.
    """
    from infra.preflight.brokers import require_kafka, require_mqtt

    if mqtt is not None and wait_s:
        require_mqtt(mqtt.address, wait_s, mqtt.tls, mqtt.login)
    if kafka is not None and wait_s:
        require_kafka(kafka, wait_s)
        if role is not None:
            from infra.preflight.kafka_rights import require_rights

            require_rights(kafka, role, groups)
    if database is not None:
        from infra.preflight.database import require_database

        require_database(database, wait_s)


def share_of(state: Path | None) -> str | None:
    """Return the name of the bridges' shared subscription; None is the usual one, for a broker closed to strangers."""
    from infra.state_folder import Layout
    from infra.state_folder.environment import Environment
    from schemas.transport.access import fault_of

    file = Environment().share_file
    if file is not None:
        try:
            return file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{file}: expected a readable file with the name of the bridges' share, got {fault_of(error)}. "
                "Correct the path."
            ) from None
    layout = Layout(state.resolve()) if state is not None else None
    if layout is None or not layout.secure:
        return None
    from infra.pki.roles import share_name

    return share_name(layout.pki)


def enrolments(layout: Layout, cameras: list[CameraId]) -> dict[CameraId, Tls] | None:
    """Return the TLS files of each of this machine's `cameras`; None when the broker accepts every client.

    Raises SecretError when some have an enrolment and others have none.
    """
    from infra.pki.enrolment import Enrolment

    if layout.plain or not any(layout.enrolment(camera).is_file() for camera in cameras):
        return None
    missing = [camera for camera in cameras if not layout.enrolment(camera).is_file()]
    if missing:
        file = layout.enrolment(missing[0])
        raise SecretError(
            f"{file} is missing: expected the enrolment of {missing[0]}. Run `pointillist enroll {missing[0]} --out "
            f"{shlex.quote(str(file))} {layout.state_option}`."
        )
    return {camera: Enrolment.read(layout.enrolment(camera)).tls for camera in cameras}


def _address(given: str | None, state: Path | None, role: str) -> str:
    if given:
        return given
    if state is None:
        raise ConfigError(
            f"--{'mqtt' if role == 'mosquitto' else role} is missing: expected host:port. Give it, or --state "
            "of a running system."
        )
    from infra.local.role_table import not_running, read_roles

    several = re.compile(rf"{role}(-[0-9]+)?")
    places = [entry["listen"] for name, entry in sorted(read_roles(state).items()) if several.fullmatch(name)]
    if not all(places) or not places:
        raise not_running(state)
    return ",".join(map(str, places))


def _tls(folder: Path | None, state: Path | None, role: str) -> Tls | None:
    from infra.state_folder import Layout
    from schemas.transport.access import Tls

    if folder is not None:
        return Tls.of_folder(folder)
    layout = Layout(state.resolve()) if state is not None else None
    if layout is None or not layout.secure:
        return None
    from infra.pki.roles import role_tls

    return role_tls(layout.pki, role)


def _login(file: Path | None, login: SecretStr | None) -> Login | None:
    from schemas.transport.access import Login, fault_of

    if file is None:
        return Login.parse(login.get_secret_value()) if login is not None else None
    try:
        return Login.parse(text_of(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected a readable login, got {fault_of(error)}. Correct the path.") from None
