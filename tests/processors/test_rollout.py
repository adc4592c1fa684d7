"""A candidate next to the live model at a running processor, with a real Kafka."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.bundling.models_topic import ModelsTopic
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
from tests.processors.test_model_swap import Bundled, System, bundled, start_system
from tests.processors.tiny import KEYS, camera_key
from tests.waiting import until

pytestmark = pytest.mark.brokers
GATE = Signer.new()


def new_rollout(model: Model, slot: Slot, frames: float = 0.5, cameras: float = 0.5) -> Rollout:
    return Rollout(
        candidate=model, begun_ms=5, slot=slot, frames=frames, cameras=cameras, by_rule=True, decider=GATE.public
    )


async def start(system: System, first: Bundled, rollout: Rollout) -> None:
    await system.publish(first)
    async with system.topic() as topic:
        await topic.write(begin(topic.models, rollout))
        assert live(topic.models) is not None


async def wait_for_candidate(system: System) -> None:
    async with system.topic() as topic:
        serving, refused, silent = await topic.wait_for_candidate(60)
    assert (len(serving), refused, silent) == (1, {}, set())


async def are_stored(system: System, count: int, failed: bool = False) -> bool:
    """Return whether Kafka has `count` comparisons, or failed ones; the metric counts them before Kafka has them."""
    found = (await comparisons(system)).values()
    return len([each for each in found if each.candidate.error or not failed]) >= count


async def comparisons(system: System) -> dict[tuple[str, int], Comparison]:
    """Return the comparisons in the topic, by camera and sequence number."""
    async with AIOKafkaConsumer(bootstrap_servers=system.rig.bootstrap, auto_offset_reset="earliest") as consumer:
        place = TopicPartition(system.rig.topic("comparisons"), 0)
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


async def test_a_shadow_classifies_the_chosen_frames_and_gives_no_verdict(kafka: Kafka, tmp_path: Path) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with start_system(kafka, first, tmp_path) as system:
        rollout = new_rollout(system.stored(second), SHADOW)
        async with system.rig.processor(instance="processor-1", comparison_queue=1000) as running:
            await start(system, first, rollout)
            await wait_for_candidate(system)
            begun = system.sent
            await system.send(40)
            chosen = {
                (f"site/cam-{n % 4}", n)
                for n in range(begun, system.sent)
                if is_compared(camera_key(f"site/cam-{n % 4}"), 7, n, rollout)
            }
            await until(system.done)
            await until(lambda: compared(running) == len(chosen))
            await until(partial(are_stored, system, len(chosen)), "the comparisons in Kafka")
            found = await comparisons(system)
            assert found.keys() == chosen
            assert set(system.used()) == {first.model_id}
            for (camera, seq), each in found.items():
                (verdict,) = system.rig.verdicts[camera, 7, seq]
                assert each.digest == rollout.candidate.digest
                assert (each.live.class_id, each.live.confidence) == (verdict.class_id, verdict.confidence)
                assert not each.candidate.error
            assert any(each.live.seconds > 0 and each.candidate.seconds > 0 for each in found.values())


async def test_a_failing_canary_loses_no_frame_and_ends_with_the_gates_assessment(
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
    async with start_system(kafka, first, tmp_path) as system:
        rollout = new_rollout(system.stored(second), CANARY)
        canaries = {f"site/cam-{n}" for n in range(4) if is_canary(camera_key(f"site/cam-{n}"), rollout)}
        assert canaries
        async with system.rig.processor(instance="processor-1", comparison_queue=1000) as running:
            await start(system, first, rollout)
            await wait_for_candidate(system)
            await system.send(16)
            await until(system.done)
            used = {v.model_id for (camera, *_), (v,) in system.rig.verdicts.items() if camera in canaries}
            assert second.model_id in used
            broken = True
            begun = system.sent
            await system.send(16)
            await until(system.done)
            late = {v.model_id for (_, _, seq), (v,) in system.rig.verdicts.items() if seq >= begun}
            assert late == {first.model_id}
            await until(lambda: running.metric("pointillist_comparisons_total", outcome="failed") > 0)
            await until(partial(are_stored, system, 1, failed=True), "a comparison that failed")
            errors = {each.candidate.error for each in (await comparisons(system)).values() if each.candidate.error}
            assert errors == {"RuntimeError: the network is broken"}
            assessment = Assessment(
                digest=rollout.candidate.digest, begun_ms=5, slot=CANARY, outcome=FAILED, at_ms=9, report="{}"
            )
            sender = Sender(system.rig.bootstrap)
            headers = event_headers(MODELS, SignedAssessment, "assessment/1")
            record = PlainRecord(ASSESSMENT_KEY, seal_assessment(assessment, GATE), headers)
            await sender.send(system.rig.topic("models"), [record], once=True)
            await sender.close()
            async with system.topic() as topic:
                await until(lambda: is_ended(topic))


async def is_ended(topic: ModelsTopic) -> bool:
    """Return whether no processor serves a candidate."""
    await topic.refresh()
    return all(not each.candidate_digest for each in topic.served.values())


async def test_a_promoted_candidate_serves_without_a_second_load(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with start_system(kafka, first, tmp_path) as system:
        rollout = new_rollout(system.stored(second), SHADOW)
        async with system.rig.processor(instance="processor-1") as running:
            await start(system, first, rollout)
            await wait_for_candidate(system)
            loads: list[object] = []
            monkeypatch.setattr("processors.models.swap.load_model", lambda *arguments: loads.append(arguments))
            async with system.topic() as topic:
                await topic.write(promoted(topic.models))
            await system.send_until_served(running, second)
            await system.send(4)
            await until(system.done)
            assert not loads
            assert system.used()[-1] == second.model_id


async def test_a_candidate_that_does_not_load_is_reported_and_the_live_model_serves(
    kafka: Kafka, tmp_path: Path
) -> None:
    first, second = bundled(tmp_path, "1"), bundled(tmp_path, "2")
    async with start_system(kafka, first, tmp_path) as system:
        model = system.stored(second)
        model.signature = b"not one"
        async with system.rig.processor(instance="processor-1"):
            await start(system, first, new_rollout(model, SHADOW))
            async with system.topic() as topic:
                serving, refused, silent = await topic.wait_for_candidate(60)
                assert (serving, silent) == (set(), set())
                assert "signature" in refused["processor-1"]
                await topic.write(ended(topic.models))
            await system.send(8)
            await until(system.done)
            assert set(system.used()) == {first.model_id}
