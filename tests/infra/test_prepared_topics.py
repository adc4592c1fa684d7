"""Topics and rights are prepared together: what fails is reported, and rights are withdrawn only after the grant."""

from __future__ import annotations

import pytest

from infra.local import topics
from infra.local.topics import prepare_topics
from infra.pki import kafka_rights
from schemas.errors import BrokerError


@pytest.mark.parametrize(
    ("failing", "done"),
    [
        ("", ["create", "grant", "retention", "withdraw"]),
        ("create", ["create", "grant", "withdraw"]),
        ("retention", ["create", "grant", "retention", "withdraw"]),
        ("grant", ["create", "grant", "retention"]),
        ("withdraw", ["create", "grant", "retention", "withdraw"]),
    ],
)
async def test_a_failure_is_raised_and_does_not_stop_the_other_part(
    monkeypatch: pytest.MonkeyPatch, failing: str, done: list[str]
) -> None:
    called = list[str]()

    def stand_in(module: object, name: str, step: str) -> None:
        async def run(*_arguments: object, **_options: object) -> None:
            called.append(step)
            if step == failing:
                raise BrokerError(f"Kafka refuses to {step}")

        monkeypatch.setattr(module, name, run)

    stand_in(topics, "create_topics", "create")
    stand_in(topics, "set_retention", "retention")
    stand_in(kafka_rights, "grant", "grant")
    stand_in(kafka_rights, "withdraw", "withdraw")
    if failing:
        with pytest.raises(BrokerError, match=f"refuses to {failing}"):
            await prepare_topics("localhost:1", {}, 60.0, {"bridge": 1})
    else:
        await prepare_topics("localhost:1", {}, 60.0, {"bridge": 1})
    assert sorted(called) == done


async def test_without_generations_and_retention_only_topics_are_created(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[str]()

    async def create(*_arguments: object) -> None:
        called.append("create")

    monkeypatch.setattr(topics, "create_topics", create)
    await prepare_topics("localhost:1", {}, None, None)
    assert called == ["create"]
