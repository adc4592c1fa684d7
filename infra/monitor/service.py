"""The monitor's loops: each measures one thing, and none waits for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from infra.monitor.alert_notifier import AlertNotifier
from infra.monitor.conservation import ConservationMetrics
from infra.monitor.gpu import GpuMetrics
from infra.monitor.host import HostMetrics
from infra.monitor.kafka import KafkaMetrics
from infra.monitor.mosquitto import MosquittoMetrics
from infra.monitor.rollout import RolloutGate
from infra.monitor.server_certificates import EVERY_S, ServerCertificates
from infra.monitor.settings import MonitorSettings
from schemas import metrics
from schemas.errors import error_text
from schemas.keys.keys import KeyRing
from schemas.runtime.health import Health

log = structlog.get_logger()


async def run_monitor(
    settings: MonitorSettings,
    keys: KeyRing,
    *,
    registry: CollectorRegistry,
    health: Health,
    stop: asyncio.Event,
    certificates: ServerCertificates | None = None,
) -> None:
    """Measure until `stop` is set. Brokers and database may be away at any time: the metrics show it.

    The ends of the servers' `certificates` are read too; the process of the role exports them.
    """
    up = metrics.BROKER_UP.on(registry)
    kafka = KafkaMetrics(registry, up.labels("kafka"), settings.kafka)
    mosquitto = MosquittoMetrics(registry, up.labels("mosquitto"), settings.broker)
    host, gpus = HostMetrics(registry, settings.folder or settings.state or Path()), GpuMetrics(registry)
    conservation = ConservationMetrics(registry, settings.kafka, settings.database, keys)
    gate = RolloutGate(registry, settings, keys)
    notifier = None
    if settings.alertmanager is not None:
        notifier = AlertNotifier(
            settings.alertmanager,
            settings.database,
            system=keys.system_id,
            console=settings.console or "",
            reviews=settings.console_store,
            published_ms=gate.records.changes_ms,
        )
    for condition in ("kafka", "mqtt"):
        health.set(condition, False, "not asked yet")
    mosquitto.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_repeat(kafka.measure, "kafka", settings.look_s, health), name="kafka"),
                group.create_task(_repeat(mosquitto.measure, "mqtt", 1.0, health), name="mqtt"),
                group.create_task(_repeat(host.measure, None, settings.look_s, health), name="host"),
                group.create_task(_repeat(gpus.measure, None, settings.look_s, health), name="gpus"),
                group.create_task(_repeat(conservation.audit, None, settings.audit_s, health), name="audit"),
                group.create_task(gate.read_models(), name="models"),
                group.create_task(gate.read_comparisons(), name="comparisons"),
                group.create_task(_repeat(gate.assess, None, settings.rollout_s, health), name="rollout"),
            ]
            if certificates is not None:
                reading = _repeat(partial(certificates.measure, mosquitto), None, EVERY_S, health)
                tasks.append(group.create_task(reading, name="certificates"))
            if notifier is not None:
                notifying = _repeat(notifier.notify_in_thread, "alertmanager", settings.alerts_s, health)
                tasks.append(group.create_task(notifying, name="alertmanager"))
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        mosquitto.close()
        await kafka.close()
        conservation.close()
        await gate.close()
        if notifier is not None:
            notifier.close()


async def _repeat(
    measure: Callable[[], Awaitable[None] | None], condition: str | None, every_s: float, health: Health
) -> None:
    """Measure repeatedly; the first failure in a row is logged, and becomes the `condition` of the role's health."""
    failing = False
    while True:
        begun = time.monotonic()
        try:
            measuring = measure()
            if measuring is not None:
                await measuring
        except Exception as error:  # any exception means that the measured thing does not answer
            if not failing:
                name = task.get_name() if (task := asyncio.current_task()) else ""
                log.warning("service_unavailable", service=name, error=error_text(error))
            failing = True
            if condition is not None:
                health.set(condition, False, error_text(error))
        else:
            failing = False
            if condition is not None:
                health.set(condition, True)
        # After a failure sooner: the metrics must show a recovery soon.
        await asyncio.sleep(max(0.2, (min(every_s, 1.0) if failing else every_s) - (time.monotonic() - begun)))
