"""The time for which Kafka keeps records: the bounds of the setting, and its effect on new and existing topics."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import ValidationError

from infra.local.kafka import Kafka
from infra.local.topics import (
    LEAST_RETENTION_S,
    MOST_RETENTION_S,
    RETENTION_S,
    create_topics,
    pointillist_topics,
    set_retention,
)
from infra.up.settings import UpSettings
from schemas.topics import KafkaTopic
from schemas.transport.kafka.admin import Admin
from tests.infra.command_line import refusal, run
from tests.waiting import until

DAY_MS, KEPT_S = "86400000", 7200.0
KEPT = {name for name, spec in pointillist_topics().items() if not spec.compacted}


def retentions(retention_s: float | None) -> set[str | None]:
    return {spec.settings().get("retention.ms") for spec in pointillist_topics(retention_s=retention_s).values()}


def test_topics_keep_records_for_a_day_or_the_given_time_and_the_list_of_models_for_good() -> None:
    assert retentions(None) == {DAY_MS, None}
    assert retentions(KEPT_S) == {"7200000", None}
    assert set(KafkaTopic) - {KafkaTopic.MODELS} == KEPT


@pytest.mark.parametrize("seconds", [LEAST_RETENTION_S - 1, MOST_RETENTION_S + 1, float("nan")])
def test_a_time_outside_the_bounds_is_refused(seconds: float) -> None:
    with pytest.raises(ValidationError, match="kafka_retention_s"):
        UpSettings(kafka_retention_s=seconds)
    assert "--retention-s: expected" in refusal(run("topics", "--kafka", "127.0.0.1:1", "--retention-s", str(seconds)))


async def settings_of(kafka: Kafka) -> dict[str, dict[str, str]]:
    """Return the settings of all our topics, by Kafka's names."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, each) for each in KafkaTopic])
    finally:
        await client.close()
    return {
        topic: {name: value for name, value, *_ in entries}
        for answer in answers
        for _, _, _, topic, entries in answer.resources
    }


@pytest.mark.brokers
async def test_the_time_holds_for_existing_topics_and_changes_no_other_setting(kafka: Kafka) -> None:
    frames = KafkaTopic.FRAMES.value
    usual = pointillist_topics()[frames].settings()["retention.bytes"]

    async def shown(retention_ms: str, retention_bytes: str) -> None:
        """Wait until Kafka's nodes have the settings, which they learn after the answer."""

        async def is_shown() -> bool:
            found = await settings_of(kafka)
            times = {found[topic]["retention.ms"] for topic in KEPT}
            return (times, found[frames]["retention.bytes"]) == ({retention_ms}, retention_bytes)

        await until(is_shown)

    async def call(*options: str) -> int:
        return (await asyncio.to_thread(run, "topics", "--kafka", kafka.bootstrap, *options)).exit_code

    await create_topics(kafka.bootstrap, pointillist_topics())
    await set_retention(kafka.bootstrap, RETENTION_S)
    try:
        async with Admin(kafka.bootstrap) as admin:
            await admin.set_topics(frames, settings={"retention.bytes": "123456789"})
        await shown(DAY_MS, "123456789")
        before = await settings_of(kafka)
        assert await call() == 0
        assert await call("--retention-s", f"{KEPT_S:g}") == 0
        await shown("7200000", "123456789")
        changed = {topic: before[topic] | {"retention.ms": "7200000"} for topic in KEPT}
        assert await settings_of(kafka) == before | changed
        assert await call() == 0
        assert await settings_of(kafka) == before | changed
    finally:
        await set_retention(kafka.bootstrap, RETENTION_S)
        await shown(DAY_MS, "123456789")
        async with Admin(kafka.bootstrap) as admin:
            await admin.set_topics(frames, settings={"retention.bytes": usual})
        await shown(DAY_MS, usual)
