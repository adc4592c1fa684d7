"""`pointillist model`, with a real Kafka and without processors."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner, Result

from infra.cli import app, model  # noqa: F401  # it registers its commands
from infra.layout import write_private
from infra.local.files import write_json
from infra.local.kafka import Kafka
from infra.local.topics import create_topics, pointillist_topics
from infra.models_topic import ModelsTopic
from schemas.errors import BrokerError, BundleError, ConfigError
from schemas.keys import KeyRing
from schemas.pointillist_pb2 import Model, Models
from schemas.topics import KafkaTopic
from tests.conftest import TopicFactory
from tests.processors.tiny import write_bundle

brokers = pytest.mark.brokers
TOPIC = KafkaTopic.MODELS.value


@pytest.fixture
def state(kafka: Kafka, state_dir: Path, tmp_path: Path) -> Iterator[Path]:
    """The state folder of a system whose Kafka runs, started with the bundle `own`."""
    asyncio.run(create_topics(kafka.bootstrap, {TOPIC: pointillist_topics()[TOPIC]}))
    write_json(state_dir / "roles.json", {"kafka": {"listen": kafka.bootstrap}})
    write_private(state_dir / "fleet.secret", "11" * 32)
    own = bundle(tmp_path, "1")
    write_json(state_dir / "run.json", {"started_ms": 1_700_000_000_000, "bundle": str(own)})
    yield state_dir
    asyncio.run(_remove(kafka.bootstrap))


async def _remove(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics([TOPIC])
    await admin.close()


def bundle(folder: Path, version: str, classes: str = "stop", **options: int) -> Path:
    made = write_bundle(folder / f"bundle-{version}", **options)  # type: ignore[arg-type]
    settings = made / "model.toml"
    text = settings.read_text().replace('version = "1"', f'version = "{version}"')
    settings.write_text(text.replace("'stop'", f"'{classes}'"))
    return made


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["model", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def listed(state: Path) -> list[tuple[str, str]]:
    rows = json.loads(run("list", "--state", state, "--json").stdout)
    return [(row["model_id"].split("+")[0], row["state"]) for row in rows]


def live(state: Path) -> str | None:
    name = json.loads(run("status", "--state", state, "--json").stdout)["live"]
    return name.split("+")[0] if name else None


@brokers
def test_what_is_published_can_be_withdrawn_down_to_the_bundle_that_the_system_was_started_with(
    state: Path, tmp_path: Path
) -> None:
    assert listed(state) == []
    assert live(state) is None
    with pytest.raises(ConfigError, match="no model is published"):
        run("rollback", "--state", state)
    second, third = bundle(tmp_path, "2"), bundle(tmp_path, "3")
    done = run("publish", second, "--state", state)
    assert done.exit_code == 0
    assert "no processor runs" in done.stdout
    run("publish", third, "--state", state)
    assert "is live already" in run("publish", third, "--state", state).stdout
    assert listed(state) == [("tiny@3", "live"), ("tiny@2", "before"), ("tiny@1", "before")]
    shutil.rmtree(second)
    run("rollback", "--state", state)
    assert listed(state) == [("tiny@3", "withdrawn"), ("tiny@2", "live"), ("tiny@1", "before")]
    assert "live is tiny@1" in run("rollback", "--state", state).stdout
    run("publish", third, "--state", state)
    assert live(state) == "tiny@3"
    run("rollback", "--state", state)
    assert live(state) == "tiny@1"
    run("rollback", "--own", "--state", state)
    assert live(state) is None
    assert {row_state for _, row_state in listed(state)} == {"withdrawn"}
    stored = {path.name.split("-")[0] for path in (state / "models").iterdir()}
    assert stored == {"tiny"}
    assert len(list((state / "models").iterdir())) == 3


@brokers
def test_a_broken_bundle_is_refused_before_anything_is_sent(state: Path, tmp_path: Path) -> None:
    broken = bundle(tmp_path, "2")
    (broken / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(BundleError, match="expected a safetensors file"):
        run("publish", broken, "--state", state)
    assert listed(state) == []
    assert not (state / "models").exists()


@brokers
@pytest.mark.parametrize(("other", "says"), [({"classes": "halt"}, "classes"), ({"overlays": 0}, "STRIP")])
def test_a_bundle_that_says_other_things_or_no_longer_watches_needs_force(
    state: Path, tmp_path: Path, other: dict[str, str | int], says: str
) -> None:
    changed = bundle(tmp_path, "2", **other)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=says):
        run("publish", changed, "--state", state)
    assert listed(state) == []
    run("publish", changed, "--state", state, "--force")
    assert live(state) == "tiny@2"


@brokers
def test_without_a_state_folder_the_store_and_the_secret_are_told(
    kafka: Kafka, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", "22" * 32)
    place = ("--kafka", kafka.bootstrap)
    with pytest.raises(ConfigError, match="--store"):
        run("publish", bundle(tmp_path, "2"), *place)
    run("publish", bundle(tmp_path, "2"), *place, "--store", tmp_path / "store")
    (stored,) = (tmp_path / "store").iterdir()
    rows = json.loads(run("list", *place, "--json").stdout)
    assert [row["location"] for row in rows] == [f"file://{stored}"]
    # Whoever has another secret neither believes it nor is kept from publishing.
    assert "not sealed" in json.loads(run("status", "--state", state, "--json").stdout)["error"]
    assert live(state) is None


def test_a_kafka_that_is_away_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTILLIST_FLEET_SECRET", "22" * 32)
    made, store = bundle(tmp_path, "2"), tmp_path / "store"
    with pytest.raises(BrokerError, match=r"Kafka broker at 127\.0\.0\.1:9"):
        run("publish", made, "--kafka", "127.0.0.1:9", "--store", store, "--broker-wait", "0.2")
    assert not store.exists()


@brokers
async def test_a_list_of_models_that_kafka_refuses_is_an_error(kafka: Kafka, kafka_topics: TopicFactory) -> None:
    topic = await kafka_topics(config={"max.message.bytes": "10"})
    async with ModelsTopic(kafka.bootstrap, KeyRing(b"1" * 32), topic) as models:
        with pytest.raises(BrokerError, match="MessageSizeTooLarge"):
            await models.write(Models(published=[Model(model_id="a-1")]))
        assert models.models == Models()
