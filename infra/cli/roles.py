"""The roles as commands: `bridge`, `process`, `record`, `fleet`. `up` runs the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli import app
from infra.cli.access import (
    BROKER_WAIT_S,
    BrokerWait,
    Kafka,
    KafkaLogin,
    KafkaTls,
    Mqtt,
    MqttLogin,
    MqttTls,
    enrolments,
    kafka_place,
    mqtt_place,
    require_brokers,
    share_of,
)
from infra.cli.code import AllowCode
from infra.cli.passwords import resolve
from infra.cli.signer import Trust, trust_file
from schemas.errors import ConfigError
from schemas.limits import USUAL_FRAME_PIXELS

Metrics = Annotated[str | None, typer.Option(help="host:port to serve /metrics and /healthz on.")]
State = Annotated[
    Path | None, typer.Option(help="Join the running system of this state folder: its brokers, its secret.")
]
ServedAs = Annotated[
    list[str] | None,
    typer.Option(help="A host name that the pages answer to, besides their address; can be given again."),
]

BehindProxy = Annotated[
    str | None,
    typer.Option(
        help="Address or network of a reverse proxy, which speaks TLS: its X-Forwarded-For and X-Forwarded-Proto are "
        "believed, nobody else's. Users are needed then."
    ),
]


def role_keys(state: Path | None, role: str) -> Any:
    """The key ring of a role, see `schemas.roots.Role`: of the state folder when that has a secret for it, else of the
    environment."""
    from infra.environment import Environment, accepted_generations, key_ring
    from infra.layout import Layout
    from schemas.keys import KeyRing
    from schemas.roots import Role

    layout = Layout(state.resolve()) if state is not None else None
    roots = layout.roots(Role(role)) if layout is not None else None
    if layout is None or roots is None:
        return key_ring(Environment(), Role(role))
    generations = layout.generations if layout.generations.is_file() else None
    return KeyRing(roots, accepted_generations(generations))


def generations_file(state: Path | None) -> Path | None:
    """Where the lowest accepted generations of keys are written while a role runs; None when nobody says where."""
    from infra.environment import Environment
    from infra.layout import Layout

    layout = Layout(state.resolve()) if state is not None else None
    if layout is None or not layout.secret_file.is_file():
        return Environment().generations_file
    return layout.generations


@app.command()
def bridge(
    mqtt: Mqtt = None,
    kafka: Kafka = None,
    name: Annotated[str, typer.Option(help="Unique among the bridges that share the load.")] = "bridge",
    single: Annotated[
        bool, typer.Option(help="One bridge with a persistent session, for publishers that know no confirmations.")
    ] = False,
    max_backlog: Annotated[
        int,
        typer.Option(
            help="MiB of a Kafka partition that processors may be behind before frames are left to the cameras; at "
            "most half of what the frames topic retains of one.",
            min=1,
        ),
    ] = 256,
    camera_messages: Annotated[
        float, typer.Option(help="Messages a second that one camera may send by this bridge; 0 is any number.", min=0)
    ] = 2000.0,
    camera_mib: Annotated[
        float, typer.Option(help="MiB a second that one camera may send by this bridge; 0 is any number.", min=0)
    ] = 128.0,
    camera_burst_mib: Annotated[
        float, typer.Option(help="MiB that one camera may send at once beyond a second of that.", min=0.001)
    ] = 79.0,
    camera_rates: Annotated[
        Path | None,
        typer.Option(help="JSON file with MiB a second of cameras that have another bound, by name; it may change."),
    ] = None,
    mqtt_tls: MqttTls = None,
    mqtt_login: MqttLogin = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    metrics: Metrics = None,
    state: State = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Carry frames from MQTT into Kafka, and confirm them to the cameras."""
    from pydantic import ValidationError

    from infra.cli.up import first_problem
    from infra.generations import following
    from infra.role import run_role
    from producers.bridge import KEPT_BYTES, BridgeSettings, run_bridge
    from schemas.runtime.memory import keep_freed

    place = mqtt_place(mqtt, state, name, tls=mqtt_tls, login=mqtt_login)
    bootstrap = kafka_place(kafka, state, name, tls=kafka_tls, login=kafka_login)
    host, port = place.address
    options: dict[str, Any] = {
        "mqtt_host": host, "mqtt_port": port, "mqtt_tls": place.tls, "mqtt_login": place.login, "name": name,
        "kafka_bootstrap": bootstrap, "mode": "single" if single else "shared",
        "max_backlog_bytes": max_backlog * 2**20,
        "camera_messages_per_s": camera_messages, "camera_bytes_per_s": camera_mib * 2**20,
        "camera_window_bytes": round(camera_burst_mib * 2**20), "camera_rates": camera_rates,
    }  # fmt: skip
    if (share := share_of(state)) is not None:
        options["group"] = share
    try:
        settings = BridgeSettings(**options)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None
    require_brokers(broker_wait, mqtt=place, kafka=bootstrap, role="bridge")
    keys = role_keys(state, "bridge")
    keep_freed(KEPT_BYTES)
    run_role(
        name,
        metrics,
        lambda registry, health, stop: following(
            generations_file(state), keys, run_bridge(settings, keys, registry=registry, health=health, stop=stop)
        ),
    )


@app.command()
def process(
    bundle: Annotated[Path, typer.Option(help="Model bundle: a folder with model.toml, or the name of a shipped one.")],
    kafka: Kafka = None,
    instance: Annotated[
        str | None, typer.Option(help="Fixed name: a restarted processor takes up its partitions at once.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="Reconstruction: default, paper (Algorithm 1), plate (not learned) or none (the network alone)."
        ),
    ] = "default",
    backend: Annotated[
        str, typer.Option(help="On a CPU: auto (what measures fastest at the start), torch or openvino.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (the fastest that changes no verdict), float32, tf32 (CUDA), bf16 or int8 (CPU).")
    ] = "auto",
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="On CUDA: one compiled device program.")
    ] = None,
    batch_frames: Annotated[int, typer.Option(help="Most frames in a batch.")] = 64,
    max_pixels: Annotated[
        int, typer.Option(help="Height x width of the largest frame; what is larger goes to the dead letters.")
    ] = USUAL_FRAME_PIXELS,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int, typer.Option(help="On a CPU: how many compute at once; 0 is half of the cores that there are.", min=0)
    ] = 0,
    model_cache: Annotated[
        Path | None, typer.Option(help="Folder for copies of published models; else in the state folder, or passing.")
    ] = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    trust: Trust = None,
    allow_code: AllowCode = False,
    metrics: Metrics = None,
    state: State = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Rebuild, denoise, classify and check frames from Kafka."""
    from pydantic import ValidationError

    from infra.cli.up import first_problem
    from infra.generations import following
    from infra.layout import Layout
    from infra.role import run_role
    from processors.service import run_processor
    from processors.settings import ProcessorSettings
    from schemas.signers import TrustedSigners

    if not bundle.exists() and bundle.name == str(bundle):
        from processors.bundle import shipped_bundle

        bundle = shipped_bundle(bundle.name)
    if model_cache is None and state is not None:
        model_cache = Layout(state.resolve()).model_cache
    options: dict[str, Any] = {
        "kafka": kafka_place(kafka, state, instance or "processor", tls=kafka_tls, login=kafka_login),
        "bundle": bundle, "instance": instance, "mode": mode, "compile": compiled,
        "batch_frames": batch_frames, "device": device, "model_cache": model_cache,
        "max_frame_pixels": max_pixels, "backend": backend, "precision": precision,
        "threads": threads, "trust": trust_file(trust, state),
    }  # fmt: skip
    TrustedSigners.read(options["trust"])
    try:
        settings = ProcessorSettings(**options)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None
    require_brokers(broker_wait, kafka=settings.kafka, role="processor", groups=[settings.group])
    keys = role_keys(state, "processor")
    run_role(
        instance or "processor",
        metrics,
        lambda registry, health, stop: following(
            generations_file(state), keys, run_processor(settings, keys, registry=registry, health=health, stop=stop)
        ),
    )


def kept(days: float | None, gib: float | None) -> Any:
    """The bounds of what is recorded, where something was said of them."""
    from consumers.settings import Bounds

    for name, value in (("--keep-days", days), ("--keep-gib", gib)):
        if value is not None and value <= 0:
            raise ConfigError(f"{name}: expected more than 0, got {value:g}")
    bounds = Bounds() if days is None else Bounds(database_age_s=days * 86_400)
    return bounds if gib is None else bounds.model_copy(update={"database_bytes": max(2**16, int(gib * 2**30))})


@app.command()
def record(
    kafka: Kafka = None,
    state: State = None,
    database: Annotated[str | None, typer.Option(help="SQLAlchemy URL; else SQLite in the state folder.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Share the work with the recorders of this consumer group, all on one PostgreSQL; else one recorder "
            "reads all.",
        ),
    ] = None,
    quarantine: Annotated[str | None, typer.Option(help="Folder or fsspec URL for flagged frames.")] = None,
    keep_days: Annotated[
        float | None, typer.Option(help="Days that frames and what was counted of each minute are kept; else 30.")
    ] = None,
    keep_gib: Annotated[
        float | None,
        typer.Option(help="GiB that frames may take, the oldest go first; else half the disk, or 64 on PostgreSQL."),
    ] = None,
    probe_budget: Annotated[
        float | None,
        typer.Option(help="Frames a second that new and suspect cameras may be told to send whole in addition.", min=0),
    ] = None,
    kafka_tls: KafkaTls = None,
    kafka_login: KafkaLogin = None,
    metrics: Metrics = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Record verdicts, raise alerts, keep flagged frames."""
    from pydantic import ValidationError

    from consumers.recorder import letters_group, run_recorder
    from consumers.settings import ProbePlan, RecorderSettings
    from infra.cli.up import first_problem
    from infra.generations import following
    from infra.layout import Layout
    from infra.role import run_role

    layout = Layout((state or Path(".pointillist")).resolve())
    if state is None and (database is None or quarantine is None):
        raise ConfigError("expected --state DIR, or both --database URL and --quarantine URL")
    url = resolve(database) if database else layout.database_url
    if group is not None and url.startswith("sqlite"):
        raise ConfigError("--group: expected a --database of PostgreSQL, got SQLite, which one recorder has for itself")
    bootstrap = kafka_place(kafka, state, "recorder", tls=kafka_tls, login=kafka_login)
    groups = [] if group is None else [group, letters_group(group)]
    require_brokers(broker_wait, kafka=bootstrap, database=url, role="recorder", groups=groups)
    try:
        settings = RecorderSettings(
            kafka=bootstrap,
            database=url,
            group=group,
            quarantine=quarantine or str(layout.quarantine),
            bounds=kept(keep_days, keep_gib),
            probes=ProbePlan() if probe_budget is None else ProbePlan(extra_per_s=probe_budget),
        )
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None
    keys = role_keys(state, "recorder")
    run_role(
        "recorder",
        metrics,
        lambda registry, health, stop: following(
            generations_file(state), keys, run_recorder(settings, keys, registry=registry, health=health, stop=stop)
        ),
    )


@app.command()
def fleet(
    scenario: Annotated[Path, typer.Option(help="YAML scenario: cameras, sources, faults.")],
    state: Annotated[Path, typer.Option(help="Folder with the cameras' keys (keys/) and spools (spool/).")],
    mqtt: Mqtt = None,
    seconds: Annotated[
        float | None, typer.Option(help="How long the cameras run, counted from their first start.")
    ] = None,
    drain: Annotated[float, typer.Option(help="Seconds to wait, after the end, for confirmations.")] = 30.0,
    resume: Annotated[
        bool,
        typer.Option(
            help="For a supervisor that restarts the fleet: after a run that is over, only drain its spools, and "
            "retry sources that do not answer. Without this, begin another run, and end when no source opens."
        ),
    ] = False,
    metrics: Metrics = None,
    broker_wait: BrokerWait = BROKER_WAIT_S,
) -> None:
    """Run simulated cameras. Exit status 3 when spools still hold frames at the drain deadline."""
    from infra.layout import Layout
    from infra.role import run_role
    from infra.up.processes import FLEET_PENDING
    from producers.fleet import run_fleet
    from producers.scenario import load_scenario
    from schemas.errors import SecretError

    layout = Layout(state.resolve())
    plan = load_scenario(scenario)
    keys = {}
    for camera in plan.cameras():
        if not layout.key_file(camera.camera_id).exists():
            raise SecretError(
                f"expected the key of {camera.camera_id} in {layout.key_file(camera.camera_id)}: see `pointillist key`"
            )
        keys[camera.camera_id] = layout.camera_key(camera.camera_id)
    enrolled = enrolments(layout, list(keys))
    place = mqtt_place(mqtt, state, next(iter(enrolled.values())) if enrolled else None)
    require_brokers(broker_wait, mqtt=place)
    outcome = run_role(
        "fleet",
        metrics,
        lambda registry, health, stop: run_fleet(
            plan, mqtt=place.address, tls=enrolled, state=layout.folder, keys=keys, registry=registry, health=health,
            stop=stop, run_s=seconds, drain_s=drain, again=not resume, patient=resume,
        ),
    )  # fmt: skip
    raise typer.Exit(0 if outcome.drained else FLEET_PENDING)
