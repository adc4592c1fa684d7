"""Published models at a running processor, with a real Kafka."""

from __future__ import annotations

import asyncio
import gc
import itertools
import shutil
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from safetensors.torch import save_file

from infra.bundling.models_topic import ModelsTopic
from infra.local.kafka import Kafka
from infra.local.topics import TopicSpec, create_topics
from processors.arrivals.job import FrameJob
from processors.bundle import load_bundle
from processors.device.backends.openvino_cpu import OpenVino
from processors.device.batch_executor import BatchExecutor
from processors.device.loaded_model import LoadedModel, load_model
from processors.models import candidates
from processors.models import feed as model_feed
from processors.models import swap as model_swap
from processors.models.feed import ModelFeed
from processors.models.store import ModelStore
from processors.stages.scenes import SceneMemory
from schemas.keys.signers import Signer
from schemas.messages.frame import Encoding
from schemas.messages.models import LIVE_KEY, live, publish, seal, sign, withdraw
from schemas.pointillist_pb2 import CHECKED, Model, Models
from tests.processors.rig import FrameName, Rig, Running, delete_topics, start_rig
from tests.processors.tiny import SIGNER, TRUSTED, marker_code, network, payload, use_own_factory, write_bundle
from tests.waiting import until

pytestmark = pytest.mark.brokers


@dataclass
class Bundled:
    """A bundle and its model id."""

    folder: Path
    model_id: str


def bundled(folder: Path, version: str, threshold_bits: float = 0.0) -> Bundled:
    """Write a bundle with random weights that depend on the version."""
    written = write_bundle(folder / f"bundle-{version}", threshold_bits=threshold_bits)
    torch.manual_seed(int(version))
    save_file(network().state_dict(), written / "weights.safetensors")
    settings = written / "model.toml"
    settings.write_text(settings.read_text().replace('version = "1"', f'version = "{version}"'))
    return Bundled(written, load_bundle(written, torch.device("cpu")).model_id)


class System:
    """Frames with consecutive numbers, and the topic and the store of models that `model publish` uses."""

    def __init__(self, rig: Rig, folder: Path, probe_share: float) -> None:
        self.rig = rig
        self.sent = 0
        self.store = ModelStore(str(folder / "store"))
        self._encoding = Encoding(16, probe_share)

    async def send(self, count: int) -> None:
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        await self.rig.publish(
            [(f"site/cam-{n % 4}", payload(f"site/cam-{n % 4}", n, encoding=self._encoding)) for n in numbers]
        )

    async def send_until_served(self, running: Running, model: Bundled) -> None:
        async def served() -> bool:
            if running.metric("pointillist_model_info", model_id=model.model_id) == 1:
                return True
            await self.send(8)
            return False

        await until(served, f"{model.model_id} served")

    def done(self) -> bool:
        return len(self.rig.verdicts) == self.sent

    def topic(self, signer: Signer = SIGNER) -> ModelsTopic:
        group = f"group-{self.rig.run}"
        return ModelsTopic(self.rig.bootstrap, TRUSTED, signer, self.rig.topic("models"), group)

    def stored(self, model: Bundled, signer: Signer = SIGNER) -> Model:
        return sign(self.store.add(model.folder, model.model_id), signer)

    async def publish(self, model: Bundled, signer: Signer = SIGNER, vouches: Signer | None = None) -> None:
        async with self.topic(signer) as topic:
            await topic.write(publish(topic.models, self.stored(model, vouches or signer)))

    async def rollback(self) -> None:
        async with self.topic() as topic:
            await topic.write(withdraw(topic.models, 1))

    def used(self) -> list[str]:
        """Return the ids of the models in the order of their verdicts on the camera that all of them classified."""
        found: list[list[str]] = []
        for camera in sorted({camera for camera, *_ in self.rig.verdicts}):
            own = sorted((v for name, (v,) in self.rig.verdicts.items() if name[0] == camera), key=lambda v: v.seq)
            found.append([model_id for model_id, _ in itertools.groupby(v.model_id for v in own)])
        longest = max(found, key=len)
        assert {model_id for own in found for model_id in own} == set(longest)
        return longest


@asynccontextmanager
async def start_system(kafka: Kafka, first: Bundled, folder: Path, probe_share: float = 0.0) -> AsyncIterator[System]:
    async with start_rig(kafka.bootstrap, first.folder) as rig:
        rig.trust = folder / "trusted-signers"
        rig.trust.write_text(SIGNER.line("tests") + "\n")
        await create_topics(kafka.bootstrap, {rig.topic("models"): TopicSpec(1, compacted=True)})
        yield System(rig, folder, probe_share)
    assert not rig.letters
    assert all(len(verdicts) == 1 for verdicts in rig.verdicts.values())


def swaps(running: Running, outcome: str) -> float:
    return running.metric("pointillist_model_swaps_total", outcome=outcome)


def detail(running: Running) -> str:
    return str(running.health.report()[1]["model"]["detail"])


async def test_swap_and_rollback_under_load_give_each_frame_one_verdict_of_its_own_model(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    saw: dict[FrameName, str] = {}
    original = BatchExecutor.classify

    def noted(self: BatchExecutor, batch: Sequence[FrameJob]) -> None:
        for job in batch:
            saw[job.camera_id, job.frame.boot_id, job.frame.seq] = self.pipeline.bundle.model_id
        original(self, batch)

    monkeypatch.setattr(BatchExecutor, "classify", noted)
    async with start_system(kafka, first, tmp_path) as system:
        async with system.rig.processor(instance="processor-1") as running:
            await system.send(24)
            await until(lambda: len(system.rig.verdicts) > 0)
            await system.publish(first)
            await until(lambda: swaps(running, "switched") == 1)
            await system.publish(second)
            await system.send_until_served(running, second)
            shutil.rmtree(first.folder)
            await system.send(24)
            await until(system.done)
            await system.rollback()
            await system.send_until_served(running, first)
            await system.send(24)
            await until(system.done)
            await until(running.healthy)
            assert detail(running) == first.model_id
            assert running.metric("pointillist_model_info", model_id=second.model_id) == 0
            assert running.metric("pointillist_model_load_seconds_count") == swaps(running, "switched") == 3
            assert swaps(running, "refused") == 0
        assert await system.rig.committed() == system.sent
    assert system.used() == [first.model_id, second.model_id, first.model_id]
    assert {name: verdict.model_id for name, (verdict,) in system.rig.verdicts.items()} == saw


async def test_waiting_probes_are_checked_with_their_own_model_which_is_then_freed(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [bundled(tmp_path, "1", 0.25), bundled(tmp_path, "2", 1.5)]
    thresholds = {models[0].model_id: 0.25, models[1].model_id: 1.5}
    executors: list[weakref.ref[BatchExecutor]] = []
    memories: list[SceneMemory] = []
    original = BatchExecutor.strip
    switched = threading.Event()

    def slow(self: BatchExecutor, *arguments: object) -> object:
        if self not in [each() for each in executors]:
            executors.append(weakref.ref(self))
            memories.append(self.scenes)
        time.sleep(0.02 if switched.is_set() else 0.2)  # a slow device keeps probes in the queue
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchExecutor, "strip", slow)
    async with (
        start_system(kafka, models[0], tmp_path, probe_share=1.0) as system,
        system.rig.processor(strip_queue=10_000, strip_slice_s=0.0001) as running,
    ):
        await system.send(80)
        await until(lambda: running.metric("pointillist_queue_frames", queue="strip") > 20)
        await system.publish(models[1])
        await until(lambda: swaps(running, "switched") == 1)
        await assert_probes_wait(running)
        switched.set()
        await system.send(20)
        await until(system.done)
        gc.collect()
        assert len(executors) == 2
        assert executors[0]() is None
        assert executors[1]() is not None
    assert memories[0] is memories[1]
    for (verdict,) in system.rig.verdicts.values():
        assert verdict.strip == CHECKED
        assert verdict.threshold_bits == pytest.approx(thresholds[verdict.model_id])
    late = [v for (v,) in system.rig.verdicts.values() if v.model_id == models[0].model_id]
    assert len(late) > 20


async def assert_probes_wait(running: Running) -> None:
    """Check that some probes of the previous model still wait."""
    before = running.metric("pointillist_queue_frames", queue="strip")
    # The gauge is updated twice a second, and an outdated value would prove nothing.
    await until(lambda: running.metric("pointillist_queue_frames", queue="strip") != before, "an updated gauge")
    assert running.metric("pointillist_queue_frames", queue="strip") > 0


async def test_a_model_that_cannot_be_loaded_is_rejected_and_the_previous_one_serves(
    kafka: Kafka, tmp_path: Path
) -> None:
    first, broken, other = (bundled(tmp_path, version) for version in "123")
    save_file({"x": torch.zeros(1)}, broken.folder / "weights.safetensors")
    async with start_system(kafka, first, tmp_path) as system:
        async with system.rig.processor(instance="processor-1") as running:
            await system.publish(broken)
            await until(lambda: swaps(running, "refused") == 1)
            await until(running.healthy)
            assert "got others" in detail(running)
            async with system.topic() as topic:
                serve, refuse, silent = await topic.wait(60)
                assert not serve | silent
                assert refuse.keys() == {"processor-1"}
                assert first.model_id in refuse["processor-1"]
                assert await topic.running() == {"processor-1"}
            await system.publish(other, Signer.new())
            await until(lambda: "the list of models: signed by SHA256:" in detail(running))
            assert swaps(running, "refused") == 2
            await system.send(8)
            await until(system.done)
            assert system.used() == [first.model_id]
            # The next valid model is loaded.
            await system.publish(other)
            await system.send_until_served(running, other)
            assert detail(running) == other.model_id
        async with system.topic() as topic:
            assert topic.served == {}
            assert await topic.running() == set()


@pytest.mark.skipif(bool(OpenVino().lacks()), reason="needs OpenVINO")
async def test_a_model_with_a_wrong_calibration_is_rejected_and_the_previous_one_serves(
    kafka: Kafka, tmp_path: Path
) -> None:
    first, misfit = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    np.save(misfit.folder / "calibration.npy", np.full((16, 32, 32, 3), 127, np.uint8))
    table = misfit.folder / "model.toml"
    table.write_text('precision = "int8"\ncalibration = "calibration.npy"\n' + table.read_text())
    misfit.model_id = load_bundle(misfit.folder, torch.device("cpu")).model_id
    async with (
        start_system(kafka, first, tmp_path) as system,
        system.rig.processor(instance="processor-1", backend="openvino", mode="plate") as running,
    ):
        await system.publish(misfit)
        await until(lambda: swaps(running, "refused") == 1)
        assert "the calibration: expected int8 to keep" in detail(running)
        await system.send(8)
        await until(system.done)
        assert system.used() == [first.model_id]
        async with system.topic() as topic:
            # Either precision may be measured as the faster one; only int8 was rejected.
            assert topic.served["processor-1"].runs in ("classifier openvino float32", "classifier openvino bf16")


async def test_a_changed_or_unreachable_bundle_is_rejected(kafka: Kafka, tmp_path: Path) -> None:
    first, second, third = (bundled(tmp_path, version) for version in "123")
    async with start_system(kafka, first, tmp_path) as system:
        place = Path(system.store.add(second.folder, second.model_id).location.removeprefix("file://"))
        deleted = Path(system.store.add(third.folder, third.model_id).location.removeprefix("file://"))
        async with system.rig.processor() as running:
            async with system.topic() as topic:
                both = publish(topic.models, system.stored(third))
                both = publish(both, system.stored(second))
                (place / "weights.safetensors").write_bytes((first.folder / "weights.safetensors").read_bytes())
                shutil.rmtree(deleted)
                await topic.write(both)
                await until(lambda: "as it was published" in detail(running))
                await topic.write(withdraw(both, 1))
                await until(lambda: "cannot fetch" in detail(running))
                await topic.write(withdraw(both, 1, everything=True))
                await until(lambda: detail(running) == first.model_id)
            assert swaps(running, "refused") == 2
            assert swaps(running, "switched") == 0


async def test_a_processor_that_starts_late_serves_the_live_model_from_its_first_frame(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_swap, "_FIRST_S", 60.0)
    first, second, broken = (bundled(tmp_path, version) for version in "123")
    save_file({"x": torch.zeros(1)}, broken.folder / "weights.safetensors")
    async with start_system(kafka, first, tmp_path) as system:
        await system.send(20)
        await system.publish(first)
        await system.publish(second)
        shutil.rmtree(first.folder)
        async with system.rig.processor() as running:
            await until(system.done)
            assert system.used() == [second.model_id]
            assert swaps(running, "switched") == 0
        await system.publish(broken)
        async with system.rig.processor() as running:
            await system.send(20)
            await until(system.done)
            assert system.used() == [second.model_id]
            assert "got others" in detail(running)


async def test_with_a_late_kafka_the_live_model_still_serves_from_the_first_frame(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_swap, "_FIRST_S", 0.0)
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with start_system(kafka, first, tmp_path) as system:
        await system.send(20)
        await system.publish(second)
        async with system.rig.processor() as running:
            await until(system.done)
            assert swaps(running, "switched") == 1
            assert system.used() == [second.model_id]


async def test_the_newer_of_two_published_models_serves_and_the_load_of_the_older_is_dropped(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (bundled(tmp_path, version) for version in "123")
    loading, go = asyncio.Event(), asyncio.Event()
    feeds: list[ModelFeed] = []
    follow = ModelFeed.run

    async def followed(self: ModelFeed) -> None:
        feeds.append(self)
        await follow(self)

    def is_known(model: Bundled) -> bool:
        newest = live(feeds[0].models)
        return newest is not None and newest.model_id == model.model_id

    async def slow(*arguments: object) -> LoadedModel:
        ready = await load_model(*arguments)  # type: ignore[arg-type]
        if ready.model_id == second.model_id:
            loading.set()
            await go.wait()
        return ready

    monkeypatch.setattr(model_swap, "load_model", slow)
    monkeypatch.setattr(ModelFeed, "run", followed)
    async with start_system(kafka, first, tmp_path) as system, system.rig.processor() as running:
        await system.publish(second)
        await loading.wait()
        # The old model serves while the new one is loaded.
        await system.send(20)
        await until(system.done)
        await system.publish(third)
        async with system.topic() as topic:
            assert len(topic.models.published) == 2
        await until(lambda: is_known(third), "the third model in the feed")
        go.set()
        await system.send_until_served(running, third)
        await system.send(8)
        await until(system.done)
        assert swaps(running, "superseded") == 1
        assert system.used() == [first.model_id, third.model_id]


async def test_a_processor_older_than_the_models_topic_reports_its_model_once_the_topic_exists(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_feed, "_MISSING_S", 0.2)
    first = bundled(tmp_path, "1")
    async with start_rig(kafka.bootstrap, first.folder) as rig, rig.processor(instance="processor-1"):
        await create_topics(kafka.bootstrap, {rig.topic("models"): TopicSpec(1, compacted=True)})
        assert await reported_model(System(rig, tmp_path, 0.0), "processor-1") == first.model_id


async def test_a_processor_reports_its_model_to_a_recreated_models_topic(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_feed, "_MISSING_S", 0.2)
    monkeypatch.setattr(model_feed, "_WAIT_S", 0.2)
    first = bundled(tmp_path, "1")
    async with start_system(kafka, first, tmp_path) as system, system.rig.processor(instance="processor-1"):
        assert await reported_model(system, "processor-1") == first.model_id
        await delete_topics(kafka.bootstrap, system.rig.topic("models"))
        await create_topics(kafka.bootstrap, {system.rig.topic("models"): TopicSpec(1, compacted=True)})
        assert await reported_model(system, "processor-1") == first.model_id


async def reported_model(system: System, processor: str) -> str:
    """Wait for the report of a processor, and return the id of the model that it serves."""
    async with system.topic() as topic:

        async def has_reported() -> bool:
            await topic.refresh()
            return processor in topic.served

        await until(has_reported, f"the report of {processor}")
        return topic.served[processor].model_id


async def test_a_processor_without_a_report_counts_as_running(kafka: Kafka, tmp_path: Path) -> None:
    first = bundled(tmp_path, "1")
    async with (
        start_system(kafka, first, tmp_path) as system,
        AIOKafkaConsumer(
            system.rig.topic("frames"),
            bootstrap_servers=kafka.bootstrap,
            group_id=f"group-{system.rig.run}",
            client_id="processor-1",
        ) as mute,
    ):
        await until(mute.assignment, "its assignment in the group")
        async with system.topic() as topic:
            assert await topic.wait(0.5) == (set(), {}, {"processor-1"})


async def test_a_signer_is_trusted_exactly_while_the_file_of_trusted_signers_lists_it(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_feed, "_WAIT_S", 0.2)
    monkeypatch.setattr(candidates, "_AGAIN_S", 0.2)
    first, second, third = (bundled(tmp_path, version) for version in "123")
    other = Signer.new()
    async with start_system(kafka, first, tmp_path) as system:
        assert system.rig.trust is not None
        own = system.rig.trust.read_text()
        async with system.rig.processor(instance="processor-1") as running:
            await system.publish(second, other)
            async with system.topic(other) as topic:
                serve, refuse, silent = await topic.wait(60)
                assert not serve | silent
                assert "who is not trusted; it serves" in refuse["processor-1"]
            await until(running.healthy)
            system.rig.trust.write_text(own + other.line("other"))
            await system.send_until_served(running, second)
            assert detail(running) == second.model_id
            # A signed list does not vouch for models that other signers have added to it.
            system.rig.trust.write_text(own)
            await system.publish(third, vouches=other)
            await until(lambda: f"rejected: {third.model_id}: signed by" in detail(running))
            await system.send(8)
            await until(system.done)
            assert system.used()[-1] == second.model_id
            system.rig.trust.write_text("no key\n")
            await system.publish(first)
            await until(lambda: "line 1: expected a public key as" in detail(running))
            system.rig.trust.write_text(own)
            await system.send_until_served(running, first)


async def test_a_replayed_old_list_is_ignored(kafka: Kafka, tmp_path: Path) -> None:
    first, second, third = (bundled(tmp_path, version) for version in "123")
    async with start_system(kafka, first, tmp_path) as system:
        await system.publish(first)
        async with system.topic() as topic:
            old = topic.models
        async with system.rig.processor() as running:
            await system.publish(second)
            await system.send_until_served(running, second)
            await replay(system, old, SIGNER)
            # The record behind the old list has been read, and so has the list.
            await replay(system, old, Signer.new())
            await until(lambda: "who is not trusted" in detail(running))
            assert detail(running).startswith(second.model_id)
            await system.send(8)
            await until(system.done)
            assert system.used()[-1] == second.model_id
            await system.publish(third)
            await system.send_until_served(running, third)
            assert swaps(running, "switched") == 2
        async with system.rig.processor() as running, system.topic() as topic:
            assert detail(running) == third.model_id
            assert live(topic.models) == topic.models.published[0]


async def replay(system: System, old: Models, signer: Signer) -> None:
    """Send a list again, as anyone with write access to Kafka can."""
    async with AIOKafkaProducer(bootstrap_servers=system.rig.bootstrap) as producer:
        await producer.send_and_wait(system.rig.topic("models"), seal(old, signer), key=LIVE_KEY, partition=0)


async def test_the_code_of_a_published_bundle_runs_only_if_its_signer_is_trusted(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POINTILLIST_ALLOW_CODE", raising=False)
    first, second, third = (bundled(tmp_path, version) for version in "123")
    for each in (second, third):
        use_own_factory(each.folder, marker_code(tmp_path / f"ran-{each.model_id[:6]}"))
    async with start_system(kafka, first, tmp_path) as system, system.rig.processor() as running:
        await system.publish(second)
        await system.send_until_served(running, second)
        monkeypatch.setenv("POINTILLIST_ALLOW_CODE", "1")
        await system.publish(third, vouches=Signer.new())
        await until(lambda: "who is not trusted" in detail(running))
    assert [path.name for path in tmp_path.glob("ran-*")] == ["ran-tiny@2"]
