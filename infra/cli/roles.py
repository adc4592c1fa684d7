"""The roles as commands: `bridge`, `process`, `record`, `fleet`. `up` runs the same ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from infra.cli import app
from infra.cli.access import (
    DEFAULT_STATE,
    KAFKA,
    MQTT,
    console_store,
    enrolments,
    mqtt_place,
    require_brokers,
    resolved,
    share_of,
)
from infra.cli.code import AllowCode
from infra.cli.signer import trust_file
from infra.settings.command import role_command
from infra.settings.variable import resolve
from schemas.errors import ConfigError

if TYPE_CHECKING:
    import asyncio

    from prometheus_client import CollectorRegistry

    from consumers.console.settings import ConsoleSettings
    from consumers.settings import RecorderSettings
    from infra.process.certificates import Certificates
    from processors.settings import ProcessorSettings
    from producers.bridge.settings import BridgeSettings
    from producers.simulation.fleet_settings import FleetSettings
    from schemas.keys.keys import KeyRing
    from schemas.runtime.health import Health
    from schemas.settings import RoleSettings

COMMON: Final = ("state", "metrics", "connect_timeout_s")
"""Settings of every role that have an option."""
TRACING: Final = ("tracing",)
SAMPLING: Final = ("tracing", "tracing_share")
"""Settings of roles on a frame's way, and of cameras."""
Records = TypeVar("Records", "RecorderSettings", "ConsoleSettings")


def role_keys(state: Path | None, role: str) -> KeyRing:
    """Return a role's key ring, see `schemas.keys.roots.Role`.

    It comes from the state folder when that holds a secret for the role, else from the environment.
    """
    from infra.state_folder import Layout
    from infra.state_folder.environment import Environment, accepted_generations, key_ring
    from schemas.keys.keys import KeyRing
    from schemas.keys.roots import Role

    layout = Layout(state.resolve()) if state is not None else None
    roots = layout.roots(Role(role)) if layout is not None else None
    if layout is None or roots is None:
        return key_ring(Environment(), Role(role))
    file = generations_file(state, role)
    # The first revocation writes the state folder's own file.
    own = file == layout.generations
    return KeyRing(roots, layout.accepted_generations() if own else accepted_generations(file))


def generations_file(state: Path | None, role: str) -> Path | None:
    """Return the file of the accepted key generations, which may change while a role runs; None without one.

    It is in the state folder if the role's secret is. If `POINTILLIST_GENERATIONS_FILE` names another one, only a
    state folder with the fleet secret takes precedence.
    """
    from infra.state_folder import Layout
    from infra.state_folder.environment import Environment
    from schemas.keys.roots import Role

    layout = Layout(state.resolve()) if state is not None else None
    named = Environment().generations_file
    if layout is None or layout.roots(Role(role)) is None:
        return named
    return layout.generations if named is None or layout.secret_file.is_file() else named


def run_following(
    role: str,
    settings: RoleSettings,
    keys: KeyRing,
    run: Callable[[CollectorRegistry, Health, asyncio.Event], Coroutine[Any, Any, None]],
    name: str | None = None,
    certificates: Certificates | None = None,
) -> None:
    """Run a role as `run_role` does, and update the accepted generations of its keys.

    `certificates` are those besides its brokers'. With TLS and no file of generations, it logs a warning.
    """
    import structlog

    from infra.pki.generations import following
    from infra.process.certificates import certificates_of, tls_of
    from infra.process.role import run_role
    from schemas.settings import TracingSettings

    file = generations_file(settings.state, role)

    async def entry(registry: CollectorRegistry, health: Health, stop: asyncio.Event) -> None:
        if file is None and tls_of(settings):
            reason = "POINTILLIST_GENERATIONS_FILE is not set: keys of revoked cameras are accepted"
            structlog.get_logger().warning("generations_not_given", reason=reason)
        await following(file, keys, run(registry, health, stop))

    run_role(
        role,
        settings.metrics,
        entry,
        name=name,
        tracing=settings.tracing if isinstance(settings, TracingSettings) else None,
        certificates={**certificates_of(settings), **(certificates or {})},
    )


@role_command(
    app, "bridge", *MQTT, *KAFKA, *COMMON, *TRACING, "name", "max_backlog_bytes", "camera_messages_per_s",
    "camera_bytes_per_s", "camera_window_bytes", "camera_rates",
)  # fmt: skip
def bridge(settings: BridgeSettings) -> None:
    """Forward frames from MQTT to Kafka, and confirm them to the cameras."""
    from producers.bridge import BridgeSettings, run_bridge
    from schemas.runtime.memory import keep_freed

    settings = resolved(settings, settings.name)
    usual, share = BridgeSettings.model_fields["group"].default, share_of(settings.state)
    if settings.group == usual and share is not None:
        settings = settings.model_copy(update={"group": share})
    require_brokers(settings.connect_timeout_s, mqtt=settings.broker, kafka=settings.kafka, role="bridge")
    keys = role_keys(settings.state, "bridge")
    keep_freed()
    run_following(
        "bridge",
        settings,
        keys,
        lambda registry, health, stop: run_bridge(settings, keys, registry=registry, health=health, stop=stop),
        name=settings.name,
    )


@role_command(
    app, "processor", "bundle", *KAFKA, *COMMON, *TRACING, "instance", "mode", "backend", "precision", "compile",
    "batch_frames", "max_frame_pixels", "device", "threads", "model_cache", "trust",
)  # fmt: skip
def process(settings: ProcessorSettings, allow_code: AllowCode = False) -> None:
    """Reconstruct, denoise, classify and check frames from Kafka."""
    from infra.state_folder import Layout
    from schemas.keys.signers import TrustedSigners
    from schemas.runtime.memory import keep_freed

    bundle, model_cache = settings.bundle, settings.model_cache
    if model_cache is None and settings.state is not None:
        model_cache = Layout(settings.state.resolve()).model_cache
    trust = trust_file(settings.trust, settings.state)
    name = settings.instance or "processor"
    settings = resolved(settings, name)
    TrustedSigners.read(trust)
    require_brokers(settings.connect_timeout_s, kafka=settings.kafka, role="processor", groups=[settings.group])
    keys = role_keys(settings.state, "processor")
    # Both import torch, which takes seconds: a process that is refused does not load it.
    from processors.bundle import shipped_bundle
    from processors.service import run_processor

    if not bundle.exists() and bundle.name == str(bundle):
        bundle = shipped_bundle(bundle.name)
    settings = settings.model_copy(update={"bundle": bundle, "model_cache": model_cache, "trust": trust})
    keep_freed()
    run_following(
        "processor",
        settings,
        keys,
        lambda registry, health, stop: run_processor(settings, keys, registry=registry, health=health, stop=stop),
        name=name,
    )


@role_command(
    app, "recorder", *KAFKA, *COMMON, *TRACING, "database", "group", "quarantine", "bounds.database_age_s",
    "bounds.database_bytes", strip="bounds",
)  # fmt: skip
def record(settings: RecorderSettings) -> None:
    """Record verdicts, raise alerts, keep quarantined frames."""
    from consumers.recorder.recorder import letters_group, run_recorder

    settings = with_records(resolved(settings, "recorder"))
    settings = settings.model_copy(update={"console_store": console_store(settings.console_store, settings.state)})
    group = settings.group
    groups = [] if group is None else [group, letters_group(group)]
    require_brokers(
        settings.connect_timeout_s, kafka=settings.kafka, database=settings.database, role="recorder", groups=groups
    )
    keys = role_keys(settings.state, "recorder")
    run_following(
        "recorder",
        settings,
        keys,
        lambda registry, health, stop: run_recorder(settings, keys, registry=registry, health=health, stop=stop),
    )


def with_records(settings: Records) -> Records:
    """Return the settings with the database and the quarantine; the default is those of the state folder."""
    from infra.state_folder import Layout

    require_urls(settings, "database", "quarantine")
    layout = Layout((settings.state or DEFAULT_STATE).resolve())
    return settings.model_copy(
        update={
            "database": resolve(settings.database) or layout.database_url,
            "quarantine": settings.quarantine or str(layout.quarantine),
        }
    )


def require_urls(settings: RoleSettings, *names: str) -> None:
    """Raise ConfigError for the first of these settings that has no URL, unless there is a state folder."""
    for name in names if settings.state is None else ():
        if not getattr(settings, name):
            raise ConfigError(f"--{name} is missing: expected a URL. Give --{name}, or --state of a system.")


@role_command(app, "fleet", "scenario", *COMMON, "mqtt", *SAMPLING, "seconds", "drain_s", "parts", "part", "resume")
def fleet(settings: FleetSettings) -> None:
    """Run simulated cameras. Exit status 3 when spools still hold frames at the drain deadline."""
    from infra.process.exit_status import FLEET_PENDING
    from infra.process.role import run_role
    from infra.state_folder import Layout
    from producers.simulation.scenario import load_scenario
    from producers.simulation.simulated_fleet import run_fleet
    from schemas.errors import SecretError

    if settings.state is None:
        raise ConfigError("state is missing: expected the folder of the cameras' keys and spools. Set state.")
    layout = Layout(settings.state.resolve())
    plan = load_scenario(settings.scenario)
    keys = {}
    for camera in settings.own_part.of(plan.cameras()):
        if not layout.key_file(camera.camera_id).exists():
            raise SecretError(
                f"{layout.key_file(camera.camera_id)} is missing: expected the key of {camera.camera_id}. Run "
                f"`pointillist key --scenario {shlex.quote(str(settings.scenario))} {layout.state_option}`."
            )
        keys[camera.camera_id] = layout.camera_key(camera.camera_id)
    if not keys:
        raise ConfigError(
            f"parts: expected at most one for each camera of {settings.scenario}, got {settings.parts}. Lower parts."
        )
    enrolled = enrolments(layout, list(keys))
    place = mqtt_place(settings.mqtt, settings.state, next(iter(enrolled.values())) if enrolled else None)
    require_brokers(settings.connect_timeout_s, mqtt=place)
    outcome = run_role(
        "fleet",
        settings.metrics,
        lambda registry, health, stop: run_fleet(
            plan, mqtt=place.address, tls=enrolled, state=layout.folder, keys=keys, registry=registry, health=health,
            stop=stop, run_s=settings.seconds, drain_s=settings.drain_s, again=not settings.resume,
            patient=settings.resume, part=settings.own_part,
        ),
        tracing=settings.tracing,
        tracing_share=settings.tracing_share,
        certificates={"mqtt": [tls.certificate for tls in (enrolled or {}).values() if tls.certificate is not None]},
    )  # fmt: skip
    raise typer.Exit(0 if outcome.drained else FLEET_PENDING)
