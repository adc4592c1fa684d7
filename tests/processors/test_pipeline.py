"""The chain of stages and the batch executor: verdicts, failures of single frames, and memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from processors.arrivals.job import FrameJob
from processors.bundle import Bundle
from processors.device.batch_executor import choose_device, most_pixels
from processors.device.memory import lacks_memory
from processors.device.probes import probes_of
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.settings import ProcessorSettings
from processors.stages.denoise import denoise
from processors.stages.modes import DenoiseSettings
from processors.stages.reconstruct import reconstruct
from processors.stages.scenes import coarse_pictures
from schemas.errors import BadPixelsError, ConfigError, StageError
from schemas.keys.keys import Purpose
from schemas.messages.frame import Encoding, decode_picture
from schemas.messages.moving import Box
from schemas.pointillist_pb2 import LOSSLESS, RAW, Frame
from tests.processors.test_strip_entropy import strip_entropy
from tests.processors.tiny import (
    batch_executor,
    camera_key,
    classify_copies,
    payload,
    picture,
    strip_checked,
    tiny_bundle,
    verified_job,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), threshold_bits=10.0)


def without_error(job: FrameJob) -> FrameJob:
    """Return a job that did not fail."""
    assert job.error is None, job.error
    return job


def entropies(jobs: Sequence[FrameJob]) -> list[float]:
    bits = [job.finding.entropy_bits for job in jobs if job.finding is not None]
    return [each for each in bits if each is not None]


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (160, 200)])
def test_without_reconstruction_the_network_gets_frames_as_they_are(bundle: Bundle, size: tuple[int, int]) -> None:
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    kept = torch.ones(2, 1, *size, dtype=torch.bool)
    torch.testing.assert_close(Pipeline(bundle, "none").network_input(frames, kept)[0], bundle.prepare(frames))
    dropped = kept.clone()
    dropped[:, :, ::2] = False
    assert not Pipeline(bundle, "none").rebuild(frames, dropped)[:, :, ::2].any()


def test_the_chain_runs_the_stages_in_their_order(bundle: Bundle) -> None:
    frames = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.25
    stages: list[str] = []

    class RecordedStage:
        def __init__(self, stage: str) -> None:
            stages.append(stage)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    result = Pipeline(bundle, denoise=DenoiseSettings(sigma=0.02))(frames, kept, RecordedStage)
    by_hand = denoise(reconstruct(frames, kept), sigma=0.02)
    logits = bundle.logits(bundle.prepare(by_hand))
    torch.testing.assert_close(result.rebuilt, by_hand)
    assert result.class_id.tolist() == logits.argmax(1).tolist()
    torch.testing.assert_close(result.confidence, logits.softmax(1).amax(1))
    assert stages == ["reconstruct", "denoise", "classify"]


def test_in_paper_mode_frames_are_rebuilt_by_algorithm_1(bundle: Bundle) -> None:
    frames = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    kept = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.25
    rebuilt = Pipeline(bundle, "paper", DenoiseSettings(sigma=0)).rebuild(frames, kept)
    torch.testing.assert_close(rebuilt, reconstruct(frames, kept, "paper"))


def test_gradients_flow_through_the_whole_chain(bundle: Bundle) -> None:
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    Pipeline(bundle).logits(frames, kept).sum().backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None
    assert float(frames.grad.abs().max()) > 0


def test_a_probe_is_classified_as_if_its_camera_had_dropped_pixels(bundle: Bundle) -> None:
    executor = batch_executor(bundle)
    whole = verified_job(payload("site/cam-0", 5, encoding=Encoding(16, probe_share=1.0)))
    dropped = verified_job(payload("site/cam-0", 5, encoding=Encoding(16)))
    assert whole.frame.whole
    assert not dropped.frame.whole
    a, b = (without_error(classify_copies(executor, [frame], [True])[0]) for frame in (whole, dropped))
    assert a.class_id == b.class_id
    assert a.confidence == pytest.approx(b.confidence)
    assert a.shown is not None
    assert b.shown is not None
    np.testing.assert_array_equal(a.shown, b.shown)


def test_strip_checks_the_whole_probe(bundle: Bundle) -> None:
    executor = batch_executor(bundle)
    shown = picture(5)
    probes = [verified_job(payload("site/cam-0", 5, encoding=Encoding(32, probe_share=1.0), shown=shown))]
    job = without_error(classify_copies(executor, probes)[0])
    assert job.probe is not None
    whole = torch.from_numpy(shown.transpose(2, 0, 1)[None].copy()).float() / 255
    assert bundle.overlays is not None
    expected = strip_entropy(whole, bundle.overlays, bundle.logits).tolist()
    executor.strip([job])
    assert entropies([job]) == pytest.approx(expected, abs=1e-5)


def test_frames_other_than_probes_have_no_input_for_strip(bundle: Bundle) -> None:
    assert (
        without_error(classify_copies(batch_executor(bundle), [verified_job(payload("site/cam-0", 1))])[0]).probe
        is None
    )


def test_a_bundle_without_overlays_checks_nothing(tmp_path: Path) -> None:
    executor = batch_executor(tiny_bundle(tmp_path, overlays=0))
    frame = verified_job(payload("site/cam-0", 5, encoding=Encoding(16, probe_share=1.0)))
    assert without_error(classify_copies(executor, [frame])[0]).probe is None
    assert executor.warm(4) is None
    with pytest.raises(StageError, match="overlays"):
        executor.pipeline.strip(torch.zeros(1, 3, 32, 32))


def test_under_tiles_strip_checks_the_tile_that_decides(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, policy="tile")
    frames = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    chosen = Pipeline(bundle).probe_input(frames)
    torch.testing.assert_close(bundle.logits(chosen), bundle.logits(bundle.prepare(frames)))


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (17, 29, 1), (40, 24, 3)])
def test_a_frame_in_a_mixed_batch_gets_the_same_result_as_alone(
    bundle: Bundle, profile: int, height: int, width: int, channels: int
) -> None:
    executor = batch_executor(bundle)
    batch = []
    for i in range(6):
        encoding = Encoding((0, 16, 40)[i % 3], probe_share=float(i == 4), profile=profile)
        shown = picture(i, height, width, channels)
        batch.append(verified_job(payload(f"site/cam-{i % 4}", i, encoding=encoding, shown=shown), f"site/cam-{i % 4}"))
    together = classify_copies(executor, batch, [True] * 6)
    for frame, outcome in zip(batch, together, strict=True):
        (alone,) = classify_copies(executor, [frame], [True])
        assert without_error(outcome).class_id == without_error(alone).class_id
        assert without_error(outcome).confidence == pytest.approx(without_error(alone).confidence, abs=1e-4)
        rebuilt = without_error(outcome).shown
        assert rebuilt is not None
        assert rebuilt.shape == (height, width, channels)
        decoded, kept = decode_picture(frame.key, frame.frame)
        if frame.frame.dropped_per_block == 0:
            continue
        difference = np.abs(rebuilt.astype(int) - decoded)[kept]
        assert difference.mean() < 12  # denoised, not replaced


def test_a_frame_whose_pixels_do_not_decode_does_not_affect_the_others(bundle: Bundle) -> None:
    executor = batch_executor(bundle)
    good = [verified_job(payload("site/cam-0", i)) for i in range(3)]
    short = Frame.FromString(payload("site/cam-0", 9))
    short.ClearField("tag")
    short.pixels = short.pixels[:-1]
    bad_raw = verified_job(camera_key("site/cam-0").sign(Purpose.FRAME, short.SerializeToString()))
    short.profile = LOSSLESS
    short.pixels = bytes(camera_key("site/cam-0").opened(short.boot_id, short.seq, b"\x01no deflate stream"))
    bad_lossless = verified_job(camera_key("site/cam-0").sign(Purpose.FRAME, short.SerializeToString()))
    outcomes = classify_copies(executor, [good[0], bad_raw, good[1], bad_lossless, good[2]])
    expected = classify_copies(executor, good)
    for outcome, alone in zip(outcomes[::2], expected, strict=True):
        assert without_error(outcome).class_id == without_error(alone).class_id
        assert without_error(outcome).confidence == pytest.approx(without_error(alone).confidence, abs=1e-5)
    for outcome in outcomes[1::2]:
        assert outcome.stage == "unpack"
        assert isinstance(outcome.error, BadPixelsError)


def test_in_a_batch_of_undecodable_frames_all_fail(bundle: Bundle) -> None:
    short = Frame.FromString(payload("site/cam-0", 9))
    short.ClearField("tag")
    short.pixels = b""
    bad = verified_job(camera_key("site/cam-0").sign(Purpose.FRAME, short.SerializeToString()))
    outcomes = classify_copies(batch_executor(bundle), [bad, bad])
    assert [job.stage for job in outcomes] == ["unpack", "unpack"]


@pytest.mark.parametrize("error", [RuntimeError("a fault of the stage"), SystemExit("a fault of the stage")])
def test_only_frames_that_fail_alone_are_failed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    executor = batch_executor(bundle)
    white = np.full((32, 32, 3), 255, np.uint8)
    batch = [verified_job(payload("site/cam-0", i, shown=white if i == 3 else None)) for i in range(5)]
    expected = [without_error(outcome).class_id for outcome in classify_copies(executor, batch)]
    failed: list[str] = []
    monkeypatch.setattr(ProcessorMetrics, "stage_failed", lambda _, name: failed.append(name))
    original = Pipeline.rebuild

    def rebuild(self: Pipeline, frames: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        if bool((frames.mean((1, 2, 3)) > 0.7).any()):
            raise error
        return original(self, frames, *rest, **options)

    monkeypatch.setattr(Pipeline, "rebuild", rebuild)
    outcomes = classify_copies(executor, batch)
    failure = outcomes.pop(3)
    assert isinstance(failure.error, StageError)
    assert "a fault of the stage" in str(failure.error)
    assert len(failed) == 1
    del expected[3]
    assert [without_error(outcome).class_id for outcome in outcomes] == expected


def test_a_nan_from_the_network_fails_only_its_frame(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = batch_executor(bundle)
    original = Bundle.network_logits

    def logits(self: Bundle, preprocessed: torch.Tensor) -> torch.Tensor:
        result = original(self, preprocessed).clone()
        if len(result) > 1:
            result[1] = torch.nan
        return result

    monkeypatch.setattr(Bundle, "network_logits", logits)
    outcomes = classify_copies(executor, [verified_job(payload("site/cam-0", i)) for i in range(3)])
    assert [job.error is not None for job in outcomes] == [False, True, False]


def test_a_batch_too_large_for_memory_is_halved(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = batch_executor(bundle)
    batch = [verified_job(payload("site/cam-0", i)) for i in range(8)]
    expected = [without_error(outcome).class_id for outcome in classify_copies(executor, batch)]
    original = Pipeline.rebuild
    sizes: list[int] = []

    def rebuild(self: Pipeline, frames: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, frames, *rest, **options)

    monkeypatch.setattr(Pipeline, "rebuild", rebuild)
    assert [without_error(outcome).class_id for outcome in classify_copies(executor, batch)] == expected
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_frame_that_lacks_memory_is_tried_once_more_before_it_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    original, left = Pipeline.rebuild, failures

    def rebuild(self: Pipeline, frames: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        nonlocal left
        if left:
            left -= 1
            raise torch.OutOfMemoryError("out of memory")
        return original(self, frames, *rest, **options)

    monkeypatch.setattr(Pipeline, "rebuild", rebuild)
    (outcome,) = classify_copies(batch_executor(bundle), [verified_job(payload("site/cam-0", 1))])
    assert left == 0
    if failures == 1:
        without_error(outcome)
    else:
        assert outcome.error is not None
        assert lacks_memory(outcome.error)


def test_strip_checks_a_batch_of_probes_like_each_probe_alone(bundle: Bundle) -> None:
    executor = batch_executor(bundle)
    probes = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    together = entropies(strip_checked(executor, probes))
    assert together == pytest.approx([entropies(strip_checked(executor, [probe]))[0] for probe in probes], abs=1e-5)


def test_a_probe_that_strip_cannot_check_does_not_affect_the_others(bundle: Bundle) -> None:
    pictures = [torch.zeros(3, 32, 32), torch.full((3, 32, 32), torch.nan), torch.ones(3, 32, 32)]
    jobs = strip_checked(batch_executor(bundle), pictures)
    assert [job.error is not None for job in jobs] == [False, True, False]


def test_a_missing_cuda_device_is_rejected_and_auto_chooses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="expected CUDA"):
        choose_device("cuda")


def test_large_frames_are_batched_on_a_gpu_but_not_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ProcessorSettings(kafka="nowhere:1", bundle=Path())
    assert most_pixels(plain.model_copy(update={"device": "cpu"})) < 2 * 432 * 768
    assert most_pixels(plain.model_copy(update={"device": "cpu", "batch_pixels": 5})) == 5
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert most_pixels(plain) >= 3 * 432 * 768


def test_the_warm_up_limits_batches_by_the_networks_input_size(tmp_path: Path) -> None:
    executor, most = batch_executor(tiny_bundle(tmp_path, side=128, overlays=0)), 0

    def counted(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, len(inputs))
        return torch.zeros(len(inputs), 3)

    executor.pipeline.bundle = replace(executor.pipeline.bundle, network=counted)
    executor.warm(64)
    assert most == 16  # 2^18 pixels at the network's input size


def test_an_unreferenced_chain_is_freed_without_garbage_collection(bundle: Bundle) -> None:
    gc.disable()
    try:
        chain = Pipeline(bundle)
        freed = weakref.ref(chain)
        del chain
        assert freed() is None
    finally:
        gc.enable()


def test_the_scene_of_a_probe_is_that_of_the_whole_frame_also_if_the_network_sees_a_square(tmp_path: Path) -> None:
    pipeline = Pipeline(tiny_bundle(tmp_path, combined=0.01))
    jobs = [verified_job(payload("site/cam-0", 5, encoding=Encoding(32, probe_share=1.0), shown=picture(5)))]
    frames = torch.from_numpy(picture(5).transpose(2, 0, 1)[None].copy()).float() / 255
    for squares in (None, [Box(0, 16, 8, 24)]):
        found = probes_of(pipeline, jobs, frames, squares=squares)[0]
        assert found.coarse is not None
        np.testing.assert_array_equal(found.coarse, coarse_pictures(frames)[0])


def test_a_bundle_without_p_values_names_no_scene(bundle: Bundle) -> None:
    executor = batch_executor(bundle)
    probes = [verified_job(payload("site/cam-0", 5, encoding=Encoding(32, probe_share=1.0), shown=picture(5)))]
    job = without_error(classify_copies(executor, probes)[0])
    executor.strip([job])
    assert job.coarse is None
    assert job.finding is not None
    assert job.finding.scene is None
