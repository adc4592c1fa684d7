"""`pointillist monitor`: metrics of brokers, machine, GPUs, and of the audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli import app
from infra.cli.access import KAFKA, MQTT, console_store, existing_layout, require_brokers, resolved
from infra.cli.roles import COMMON, require_urls, role_keys
from infra.settings.command import role_command
from infra.settings.variable import resolve

if TYPE_CHECKING:
    from infra.monitor.settings import MonitorSettings


@role_command(app, "monitor", *MQTT, *KAFKA, *COMMON, "database", "alertmanager", "console")
def monitor(settings: MonitorSettings) -> None:
    """Serve metrics of Kafka, mosquitto, this machine, its GPUs and the audit; post alerts to Alertmanager."""
    from infra.cli.signer import trust_file
    from infra.monitor.server_certificates import ServerCertificates
    from infra.monitor.service import run_monitor
    from infra.process.certificates import certificates_of
    from infra.process.role import run_role
    from infra.state_folder import Layout

    require_urls(settings, "database")
    layout = existing_layout(settings.state) if settings.state is not None else Layout(Path())
    settings = resolved(settings, "monitor").model_copy(
        update={
            "database": resolve(settings.database) or layout.database_url,
            "console_store": console_store(settings.console_store, settings.state),
            "signer": settings.signer or (layout.decider_file if settings.state and layout.decider() else None),
            "trust": trust_file(settings.trust, settings.state),
        }
    )
    require_brokers(settings.connect_timeout_s, mqtt=settings.broker, kafka=settings.kafka)
    keys = role_keys(settings.state, "auditor")
    servers = ServerCertificates(settings)
    run_role(
        "monitor",
        settings.metrics,
        lambda registry, health, stop: run_monitor(
            settings, keys, registry=registry, health=health, stop=stop, certificates=servers
        ),
        certificates={**certificates_of(settings), **servers.ends},
    )
