"""`pointillist console`: the pages for people."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from infra.cli import app
from infra.cli.access import DEFAULT_STATE, KAFKA, MQTT, require_brokers, resolved
from infra.cli.code import AllowCode
from infra.cli.roles import COMMON, require_urls, role_keys, run_following, with_records
from infra.cli.signer import trust_file
from infra.settings.command import role_command
from infra.settings.variable import resolve
from schemas.transport.access import CERTIFICATE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consumers.console.settings import ConsoleSettings


@role_command(
    app, "console", "http", *KAFKA, *MQTT, *COMMON, "database", "quarantine", "store", "kept_files", "users", "tokens",
    "allowed_host", "http_tls", "behind_proxy", "trust", "jobs.folder", "jobs.bundle", "jobs.signer", "jobs.models",
    "jobs.admin_tls", "jobs.admin_login_file", "prometheus",
)  # fmt: skip
def console(settings: ConsoleSettings, allow_code: AllowCode = False) -> None:
    """Serve the fleet's web pages: cameras, pictures, history and alerts. Users send commands to cameras from them."""
    from consumers.console.role import run_console
    from infra.cli.console_features import feature_process
    from infra.cli.console_jobs import job_settings, launcher
    from infra.process.certificates import end_at_start
    from infra.prometheus.runbooks import PAGE
    from infra.state_folder import Layout
    from infra.up.system_state import role_states

    state = settings.state
    require_urls(settings, "store")
    layout = Layout((state or DEFAULT_STATE).resolve())
    users = layout.users if settings.users is None and state is not None and layout.users.is_file() else settings.users
    found = with_records(resolved(settings, "console")).model_copy(
        update={
            "store": resolve(settings.store) or layout.console_url,
            "users": users,
            "tokens": settings.tokens or (layout.tokens if state is not None else None),
            "owner_file": settings.owner_file or (layout.owner_token if state is not None else None),
            "trust": trust_file(settings.trust, state),
            "jobs": job_settings(settings),
            "runbooks": settings.runbooks or PAGE,
        }
    )
    require_brokers(settings.connect_timeout_s, kafka=found.kafka)
    read_roles = partial(role_states, layout) if (layout.folder / "roles.json").is_file() else None
    keys = role_keys(state, "console")
    certificates: dict[str, list[Path] | Callable[[], float]] = {}
    if found.jobs is not None and found.jobs.admin_tls is not None:
        certificates["admin"] = [found.jobs.admin_tls / CERTIFICATE_FILE]
    if found.http_tls is not None:
        certificates["pages"] = end_at_start(found.http_tls / CERTIFICATE_FILE)
    serve = partial(run_console, launch=launcher(), read_roles=read_roles, feature_extractor=feature_process())
    run_following(
        "console",
        found,
        keys,
        lambda registry, health, stop: serve(found, keys, registry=registry, health=health, stop=stop),
        certificates=certificates,
    )
