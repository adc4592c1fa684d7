"""A candidate next to the live model at a running processor, with a real Kafka."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.kafka import Kafka
from processors.device.batch_executor import BatchExecutor
from schemas.identity import CameraId
from schemas.keys.signers import Signer
from schemas.messages.cloudevents import MODELS, event_headers
from schemas.messages.models import live
from schemas.messages.rollout import ASSESSMENT_KEY, begin, ended, is_canary, is_compared, promoted, seal_assessment
from schemas.messages.server_messages import open_statement
from schemas.pointillist_pb2 import (
    CANARY,
    FAILED,
    SHADOW,
    Assessment,
    Comparison,
    Model,
    Rollout,
    SignedAssessment,
    Slot,
)
from schemas.transport.kafka.sender import PlainRecord, Sender
from tests.processors.rig import Running
from tests.processors.test_model_swap import Bundled, System, bundled, system
from tests.processors.tiny import KEYS, camera_key
from tests.waiting import until

pytestmark = pytest.mark.brokers
GATE = Signer.new()


def rollout(model: Model, slot: Slot, frames: float = 0.5, cameras: float = 0.5) -> Rollout:
    return Rollout(
        candidate=model, begun_ms=5, slot=slot, frames=frames, cameras=cameras, by_rule=True, decider=GATE.public
    )


async def start(it: System, first: Bundled, made: Rollout) -> None:
    await it.publish(first)
    async with it.topic() as topic:
        await topic.write(begin(topic.models, made))
        assert live(topic.models) is not None


async def loaded(it: System, made: Rollout) -> None:
    async with it.topic() as topic:
        serving, refused, silent = await topic.wait_for_candidate(60)
    assert (len(serving), refused, silent) == (1, {}, set())


async def are_stored(it: System, count: int, failed: bool = False) -> bool:
    """Whether Kafka has `count` comparisons, or failed ones: they are counted when they are sent."""
    found = (await comparisons(it)).values()
    return len([each for each in found if each.candidate.error or not failed]) >= count


async def comparisons(it: System) -> dict[tuple[str, int], Comparison]:
    """Return those in the topic, by camera and number."""
    async with AIOKafkaConsumer(bootstrap_servers=it.made.bootstrap, auto_offset_reset="earliest") as consumer:
        place = TopicPartition(it.made.topic("comparisons"), 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        found = {}
        while await consumer.position(place) < end:
            for record in (await consumer.getmany(timeout_ms=200)).get(place, []):
                camera = record.key.decode()
                comparison = open_statement(Comparison, CameraId(camera), record.value, KEYS)
                found[camera, comparison.seq] = comparison
        return found


def compared(running: Running) -> float:
    return sum(running.metric("pointillist_comparisons_total", outcome=name) for name in ("compared", "failed"))


async def test_a_shadow_judges_the_chosen_frames_and_gives_no_verdict(kafka: Kafka, tmp_path: Path) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with system(kafka, first, tmp_path) as it:
        made = rollout(it.stored(second), SHADOW)
        async with it.made.processor(instance="processor-1", comparison_queue=1000) as running:
            await start(it, first, made)
            await loaded(it, made)
            begun = it.sent
            await it.send(40)
            chosen = {
                (f"site/cam-{n % 4}", n)
                for n in range(begun, it.sent)
                if is_compared(camera_key(f"site/cam-{n % 4}"), 7, n, made)
            }
            await until(it.done)
            await until(lambda: compared(running) == len(chosen))
            await until(partial(are_stored, it, len(chosen)), "the comparisons in Kafka")
            found = await comparisons(it)
            assert found.keys() == chosen
            assert set(it.used()) == {first.model_id}
            for (camera, seq), each in found.items():
                (verdict,) = it.made.verdicts[camera, 7, seq]
                assert each.digest == made.candidate.digest
                assert (each.live.class_id, each.live.confidence) == (verdict.class_id, verdict.confidence)
                assert not each.candidate.error
            assert any(each.live.seconds > 0 and each.candidate.seconds > 0 for each in found.values())


async def test_a_canary_that_fails_on_each_frame_costs_no_frame_and_ends_with_the_gates_assessment(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    original = BatchExecutor._attempt
    broken = False

    def fail(self: BatchExecutor, batch: object) -> None:
        if broken and self.pipeline.bundle.model_id == second.model_id:
            raise RuntimeError("the network is broken")
        original(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchExecutor, "_attempt", fail)
    async with system(kafka, first, tmp_path) as it:
        made = rollout(it.stored(second), CANARY)
        canaries = {f"site/cam-{n}" for n in range(4) if is_canary(camera_key(f"site/cam-{n}"), made)}
        assert canaries
        async with it.made.processor(instance="processor-1", comparison_queue=1000) as running:
            await start(it, first, made)
            await loaded(it, made)
            await it.send(16)
            await until(it.done)
            used = {v.model_id for (camera, *_), (v,) in it.made.verdicts.items() if camera in canaries}
            assert second.model_id in used
            broken = True
            begun = it.sent
            await it.send(16)
            await until(it.done)
            late = {v.model_id for (_, _, seq), (v,) in it.made.verdicts.items() if seq >= begun}
            assert late == {first.model_id}
            await until(lambda: running.metric("pointillist_comparisons_total", outcome="failed") > 0)
            await until(partial(are_stored, it, 1, failed=True), "a comparison that failed")
            errors = {each.candidate.error for each in (await comparisons(it)).values() if each.candidate.error}
            assert errors == {"RuntimeError: the network is broken"}
            assessment = Assessment(
                digest=made.candidate.digest, begun_ms=5, slot=CANARY, outcome=FAILED, at_ms=9, report="{}"
            )
            sender = Sender(it.made.bootstrap)
            headers = event_headers(MODELS, SignedAssessment, "assessment/1")
            record = PlainRecord(ASSESSMENT_KEY, seal_assessment(assessment, GATE), headers)
            await sender.send(it.made.topic("models"), [record], once=True)
            await sender.close()
            async with it.topic() as topic:
                await until(lambda: gone(topic))


async def gone(topic: object) -> bool:
    from infra.bundling.models_topic import ModelsTopic

    assert isinstance(topic, ModelsTopic)
    await topic.refresh()
    return all(not each.candidate_digest for each in topic.served.values())


async def test_a_promoted_candidate_serves_without_a_second_load(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with system(kafka, first, tmp_path) as it:
        made = rollout(it.stored(second), SHADOW)
        async with it.made.processor(instance="processor-1") as running:
            await start(it, first, made)
            await loaded(it, made)
            loads: list[object] = []
            monkeypatch.setattr("processors.models.swap.load_model", lambda *given: loads.append(given))
            async with it.topic() as topic:
                await topic.write(promoted(topic.models))
            await it.send_until_served(running, second)
            await it.send(4)
            await until(it.done)
            assert not loads
            assert it.used()[-1] == second.model_id


async def test_a_candidate_that_does_not_load_is_reported_and_the_live_model_goes_on(
    kafka: Kafka, tmp_path: Path
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with system(kafka, first, tmp_path) as it:
        model = it.stored(second)
        model.signature = b"not one"
        async with it.made.processor(instance="processor-1"):
            await start(it, first, rollout(model, SHADOW))
            async with it.topic() as topic:
                serving, refused, silent = await topic.wait_for_candidate(60)
                assert (serving, silent) == (set(), set())
                assert "signature" in refused["processor-1"]
                await topic.write(ended(topic.models))
            await it.send(8)
            await until(it.done)
            assert set(it.used()) == {first.model_id}
