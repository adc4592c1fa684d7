"""A published bundle with stages at a running processor with a real Kafka: the verdicts equal the lab's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from infra.local.kafka import Kafka
from lab.data import to_frames
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.messages.frame import Encoding, decode_picture
from schemas.pointillist_pb2 import CHECKED, Verdict
from tests.processors.preprocess_rig import CHAIN, staged_folder
from tests.processors.rig import FrameName
from tests.processors.test_model_swap import Bundled, bundled, start_system
from tests.processors.tiny import camera_key, payload, verified_job
from tests.waiting import until

CPU = torch.device("cpu")


def frame_of(name: FrameName, encoding: Encoding) -> tuple[Tensor, Tensor, bool]:
    """Return a frame as it was sent, its mask, and whether it is a probe."""
    camera, _, seq = name
    frame = verified_job(payload(camera, seq, encoding=encoding), camera)
    shown, mask = decode_picture(frame.key, frame.frame)
    return to_frames(shown[None], CPU), torch.from_numpy(mask)[None, None], frame.frame.whole


@torch.inference_mode()
def lab_result(pipeline: Pipeline, name: FrameName, encoding: Encoding) -> tuple[int, float, float | None]:
    """Return the class, the confidence and STRIP's entropy in bits of one frame, computed from its camera's key."""
    camera, boot, seq = name
    frames, kept, whole = frame_of(name, encoding)
    seeds = torch.tensor([camera_key(camera).preprocess_seed(boot, seq)])
    found = pipeline(frames, kept, seeds=seeds)
    bits = None
    if whole:
        bits = float(pipeline.strip(pipeline.probe_input(frames, seeds), seeds=seeds).entropy_bits)
    return int(found.class_id), float(found.confidence), bits


@pytest.mark.brokers
async def test_any_processor_gives_the_labs_verdicts_through_a_published_bundles_stages(
    kafka: Kafka, tmp_path: Path
) -> None:
    folder = staged_folder(tmp_path / "staged", CHAIN)
    staged = Bundled(folder, load_bundle(folder, CPU).model_id)
    encoding = Encoding(16, 0.25)
    async with start_system(kafka, bundled(tmp_path, "1"), tmp_path, probe_share=0.25) as system:
        async with system.rig.processor() as first:
            await system.publish(staged)
            await system.send_until_served(first, staged)
            async with system.rig.processor():
                await system.send(96)
                await until(system.done)
        verdicts: dict[FrameName, Verdict] = {
            name: verdict for name, (verdict,) in system.rig.verdicts.items() if verdict.model_id == staged.model_id
        }
    assert len(verdicts) >= 96
    pipeline = Pipeline(load_bundle(folder, CPU))
    probed = 0
    for name, verdict in verdicts.items():
        class_id, confidence, bits = lab_result(pipeline, name, encoding)
        assert verdict.class_id == class_id
        assert verdict.confidence == pytest.approx(confidence, abs=1e-5)
        if bits is not None and verdict.strip == CHECKED:
            assert verdict.entropy_bits == pytest.approx(bits, abs=1e-4)
            probed += 1
    assert probed > 3
    # Other seeds give other confidences.
    name, verdict = next(iter(verdicts.items()))
    frames, kept, _ = frame_of(name, encoding)
    reseeded = pipeline(frames.expand(20, -1, -1, -1), kept.expand(20, -1, -1, -1), seeds=torch.arange(20)).confidence
    assert float((reseeded - verdict.confidence).abs().max()) > 1e-4
