"""The live chain and the lab's evaluation agree at every frame size and under every policy."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from lab.data import LabelledPictures, to_frames
from lab.masks import random_masks
from lab.restoration.evaluate import evaluate
from processors import pipeline as module
from processors.arrivals.job import Shape
from processors.bundle import Bundle, Policy
from processors.device.batch_executor import BatchExecutor
from processors.device.compiled_pipeline import CompiledPipeline
from processors.metrics import ProcessorMetrics
from processors.pipeline import RESTORED_PIXELS, SCALED_FROM, SMALL_SCALED_FROM, Pipeline
from processors.stages.at_scale import at_scale, density
from processors.stages.learned import SMALL_SIDE
from processors.stages.nearest import reconstruct_nearest
from processors.stages.reconstruct import reconstruct
from processors.stages.strip import class_entropy
from schemas.limits import dropped_per_block
from schemas.messages.frame import Encoding, decode_picture
from tests.processors.preprocess_rig import CHAIN, staged_bundle
from tests.processors.tiny import camera_key, classify_copies, payload, picture, tiny_bundle, verified_job

CPU = torch.device("cpu")
POLICIES: tuple[Policy, ...] = ("resize", "crop", "tile")
JPEG = '[[preprocess]]\nstage = "jpeg"\nquality = 60\n'


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    known: dict[str, Bundle] = {
        policy: tiny_bundle(tmp_path_factory.mktemp(policy), policy=policy) for policy in POLICIES
    }
    return known.__getitem__


def by_hand(bundle: Bundle, frames: Tensor, kept: Tensor) -> Tensor:
    """Return the network's input: the frames rebuilt whole or at the network's scale, and prepared by the policy."""
    size, side = (bundle.settings.input.height, bundle.settings.input.width), min(frames.shape[2:])
    few = density(kept, *size) < (SMALL_SCALED_FROM if side <= SMALL_SIDE else SCALED_FROM)
    if bundle.settings.input.policy != "resize" or side <= 32 or few:
        return bundle.prepare(reconstruct(frames, kept))
    return bundle.prepare(reconstruct(*at_scale(frames, kept, *size)))


@pytest.mark.parametrize("side", [32, 128, 136, 480])
def test_whole_frames_are_rebuilt_with_the_weights_of_their_size(bundles: Callable[[str], Bundle], side: int) -> None:
    frames = to_frames(picture(1, side, side)[None], CPU)
    kept = random_masks(1, side, side, 0.25, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            Pipeline(bundles("tile")).rebuild(frames, kept), reconstruct(frames, kept), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "drop"), [(32, 0.25), (40, 0.75), (64, 0.5), (64, 0.75), (128, 0.25), (136, 0.25), (480, 0.25)]
)
def test_live_and_lab_give_the_same_verdicts(
    bundles: Callable[[str], Bundle], policy: str, channels: int, side: int, drop: float
) -> None:
    pipeline = Pipeline(bundles(policy))
    executor = BatchExecutor(CompiledPipeline(pipeline), ProcessorMetrics(CollectorRegistry()))
    encoding = Encoding(dropped_per_block(drop))
    message = payload("site/cam-0", 3, encoding=encoding, shown=picture(3, side, side, channels))
    (live,) = classify_copies(executor, [verified_job(message)])
    assert live.error is None
    decoded, mask = decode_picture(verified_job(message).key, verified_job(message).frame)
    frames, kept = to_frames(decoded[None], CPU), torch.from_numpy(mask)[None, None]
    with torch.inference_mode():
        lab = pipeline(frames, kept)
        expected = pipeline.bundle.logits(by_hand(pipeline.bundle, frames, kept)).softmax(1).amax(1)
    assert live.class_id == int(lab.class_id)
    assert live.confidence == pytest.approx(float(lab.confidence), abs=1e-6)
    assert live.confidence == pytest.approx(float(expected), abs=1e-5)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    known: dict[str, Bundle] = {
        policy: staged_bundle(tmp_path_factory.mktemp(policy), CHAIN + JPEG, policy=policy) for policy in POLICIES
    }
    return known.__getitem__


def seeds_of(count: int) -> Tensor:
    """Return the seeds that a processor uses for the stages of the camera's first frames."""
    return torch.tensor([camera_key("site/cam-0").preprocess_seed(7, seq) for seq in range(count)])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("channels", "side", "drop"), [(1, 32, 0.25), (3, 32, 0.25), (3, 64, 0.5), (3, 136, 0.25)])
def test_live_and_lab_give_the_same_verdicts_through_a_bundles_stages(
    staged: Callable[[str], Bundle], policy: str, channels: int, side: int, drop: float
) -> None:
    pipeline = Pipeline(staged(policy))
    encoding = Encoding(dropped_per_block(drop))
    messages = [payload("site/cam-0", i, encoding=encoding, shown=picture(i, side, side, channels)) for i in range(4)]
    decoded = [decode_picture(verified_job(message).key, verified_job(message).frame) for message in messages]
    frames = to_frames(torch.stack([torch.from_numpy(shown) for shown, _ in decoded]).numpy(), CPU)
    kept = torch.stack([torch.from_numpy(mask) for _, mask in decoded])[:, None]
    with torch.inference_mode():
        lab = pipeline(frames, kept, seeds=seeds_of(4))
        logits = pipeline.logits(frames, kept, seeds_of(4))
        seen = pipeline.bundle.preprocess(pipeline.network_input(frames, kept)[0], seeds_of(4))
    torch.testing.assert_close(pipeline.bundle.network_logits(seen), logits)
    assert lab.class_id.tolist() == logits.argmax(1).tolist()
    # A processor may get the same frames in other batches.
    for order in ([0, 1, 2, 3], [3, 1], [2], [0]):
        executor = BatchExecutor(CompiledPipeline(pipeline), ProcessorMetrics(CollectorRegistry()))
        live = classify_copies(executor, [verified_job(messages[i]) for i in order])
        for i, found in zip(order, live, strict=True):
            assert found.class_id == int(lab.class_id[i])
            assert found.confidence == pytest.approx(float(lab.confidence[i]), abs=1e-5)


def test_strip_adds_overlays_before_the_stages_and_seeds_them_by_the_cameras_key(
    staged: Callable[[str], Bundle],
) -> None:
    pipeline = Pipeline(staged("resize"))
    frames = [verified_job(payload("site/cam-0", i, encoding=Encoding(16, 1.0))) for i in range(3)]
    assert all(frame.frame.whole for frame in frames)
    executors = [BatchExecutor(CompiledPipeline(pipeline), ProcessorMetrics(CollectorRegistry())) for _ in range(2)]
    first = classify_copies(executors[0], frames)
    again = [copy(job) for job in reversed(first)]
    executors[0].strip(first)
    executors[1].strip(again)
    bits = [job.finding.entropy_bits for job in first if job.finding]
    assert bits == pytest.approx([job.finding.entropy_bits for job in reversed(again) if job.finding], abs=1e-4)
    whole, overlays = torch.stack([job.probe for job in first if job.probe is not None]), pipeline.bundle.overlays
    assert overlays is not None
    with torch.inference_mode():
        sums = (whole[:, None] + overlays).flatten(0, 1)
        own = (seeds_of(3)[:, None] ^ torch.arange(1, len(overlays) + 1)).flatten()
        verdicts = pipeline.bundle.network_logits(pipeline.bundle.preprocess(sums, own))
        wanted = class_entropy(verdicts).view(3, -1).mean(1)
    assert bits == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_labs_evaluation_uses_the_verdicts_of_the_chain(bundles: Callable[[str], Bundle], policy: str) -> None:
    pipeline = Pipeline(bundles(policy))
    images = torch.stack([torch.from_numpy(picture(i, 96, 136)) for i in range(5)]).numpy()
    kept = random_masks(5, 96, 136, 0.25, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        classes = pipeline(to_frames(images, CPU), kept).class_id
    found = evaluate(pipeline, LabelledPictures("some", images, classes.numpy()), drop_ratio=0.25)
    assert found.denoised.all()
    assert found.reconstructed.all()


@pytest.mark.parametrize(("policy", "side", "stages"), [("tile", 136, False), ("resize", 32, True)])
def test_a_compiled_program_gives_the_verdicts_of_the_pipeline(
    bundles: Callable[[str], Bundle],
    staged: Callable[[str], Bundle],
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    side: int,
    stages: bool,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    shape = Shape(side, side, 3)
    pipeline = Pipeline(staged(policy), "plate") if stages else Pipeline(bundles(policy))
    compiled = CompiledPipeline(pipeline, compiles=True)
    assert compiled.compile_for(shape, 2)
    # Without a whole frame, both masks would be one tensor, and torch would compile again.
    encodings = Encoding(16), Encoding(16, 1.0)
    frames = [
        verified_job(payload("site/cam-0", i, encoding=each, shown=picture(i, side, side)))
        for i, each in enumerate(encodings)
    ]
    plain, fast = (
        classify_copies(BatchExecutor(each, ProcessorMetrics(CollectorRegistry())), frames, [True, True])
        for each in (CompiledPipeline(pipeline), compiled)
    )
    for one, other in zip(plain, fast, strict=True):
        assert one.error is other.error is None
        assert one.class_id == other.class_id
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_a_pipeline_whose_path_depends_on_the_masks_is_not_compiled(bundles: Callable[[str], Bundle]) -> None:
    compiled = CompiledPipeline(Pipeline(bundles("resize")), compiles=True)
    assert not compiled.compile_for(Shape(64, 64, 3), 2)
    assert compiled.shapes == []


def test_a_crop_rebuilds_only_its_surroundings_and_equals_the_crop_of_the_whole_frame(
    bundles: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(bundles("crop"))
    frames = to_frames(picture(2, 401, 307)[None], CPU)
    kept = random_masks(1, 401, 307, 0.5, torch.Generator().manual_seed(0))
    whole = pipeline.bundle.prepare(reconstruct(frames, kept))
    original, sizes = Pipeline.rebuild, []

    def rebuild(self: Pipeline, frames: Tensor, *rest: object, **options: object) -> Tensor:
        sizes.append(tuple(frames.shape[2:]))
        return original(self, frames, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "rebuild", rebuild)
    with torch.inference_mode():
        seen, rebuilt = pipeline.network_input(frames, kept)
    torch.testing.assert_close(seen, whole, atol=1e-5, rtol=0)
    assert rebuilt is None
    assert max(sizes[0]) <= 32 + 2 * 64 + 8


def test_in_a_batch_of_mixed_drop_ratios_each_frame_gets_its_own_result(
    bundles: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTORED_PIXELS", 0)
    monkeypatch.setattr(module, "RESTORED_BELOW", 4)
    pipeline = Pipeline(bundles("resize"))
    frames = to_frames(torch.stack([torch.from_numpy(picture(i, 64, 88)) for i in range(6)]).numpy(), CPU)
    generator = torch.Generator().manual_seed(0)
    kept = torch.cat([random_masks(1, 64, 88, ratio, generator) for ratio in (0.0, 0.875, 0.375, 0.25, 0.75, 0.4375)])
    assert pipeline.ways(kept) == ([1, 4], [2, 5], [0, 3])
    with torch.inference_mode():
        together, rebuilt = pipeline.network_input(frames, kept)
        dropped = pipeline.dropped_input(frames, kept)
        for i in range(6):
            alone = frames[i : i + 1], kept[i : i + 1]
            torch.testing.assert_close(together[i : i + 1], pipeline.network_input(*alone)[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(dropped[i : i + 1], pipeline.dropped_input(*alone), atol=1e-6, rtol=0)
    assert rebuilt is None


def test_the_path_of_a_frame_follows_from_its_size_its_density_and_the_networks_input(tmp_path: Path) -> None:
    small, large = Pipeline(tiny_bundle(tmp_path / "small")), Pipeline(tiny_bundle(tmp_path / "large", side=72))
    assert 32 * 32 <= RESTORED_PIXELS < 72 * 72
    cases = [
        (small, (64, 64), 0.5, 0),  # density 2: rebuilt whole
        (small, (64, 64), 0.25, 1),  # density 3
        (small, (136, 136), 0.875, 1),  # larger than frames that are cheap to rebuild whole
        (large, (136, 136), 0.75, 0),  # density .9
        (large, (136, 136), 0.5, 1),  # density 1.8: too few pixels for a large input
        (large, (136, 136), 0.25, 2),  # density 2.7: enough pixels for a large input
    ]
    for pipeline, size, drop, way in cases:
        kept = random_masks(2, *size, drop, torch.Generator().manual_seed(0))
        assert pipeline.ways(kept)[way] == [0, 1], (size, drop)


def test_gradients_flow_at_scale(bundles: Callable[[str], Bundle]) -> None:
    frames = to_frames(picture(0, 64, 64)[None], CPU).requires_grad_()
    for ratio in (0.25, 0.75):
        kept = random_masks(1, 64, 64, ratio, torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad(Pipeline(bundles("resize")).logits(frames, kept).sum(), frames)
        assert float(gradient.abs().max()) > 0
        assert not gradient[(~kept).expand_as(gradient)].any()


def test_strip_reads_a_large_frame_at_the_networks_scale(bundles: Callable[[str], Bundle]) -> None:
    pipeline = Pipeline(bundles("resize"))
    frames = to_frames(picture(4, 240, 320)[None], CPU)
    kept = random_masks(1, 240, 320, 0.25, torch.Generator().manual_seed(0))
    seen = pipeline.dropped_input(frames, kept)
    assert seen.shape == (1, 3, 32, 32)
    # The result nearly equals the frame with each dropped pixel filled from its neighbour, at the same size.
    whole = pipeline.probe_input(reconstruct_nearest(frames, kept))
    assert float((seen - whole).abs().mean()) < 0.01


@pytest.mark.parametrize(
    ("size", "shown"), [((216, 768), (108, 384)), ((90, 40), (90, 40)), ((24, 24), (24, 24)), ((1000, 500), (384, 192))]
)
def test_a_preview_has_at_most_the_display_size(
    bundles: Callable[[str], Bundle], size: tuple[int, int], shown: tuple[int, int]
) -> None:
    executor = BatchExecutor(CompiledPipeline(Pipeline(bundles("resize"))), ProcessorMetrics(CollectorRegistry()))
    smooth_picture = torch.nn.functional.interpolate(
        torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), size
    )
    pixels = (smooth_picture[0].permute(1, 2, 0) * 255).byte().numpy()
    jobs = [verified_job(payload("site/cam-0", i, shown=pixels)) for i in range(2)]
    found, unasked = classify_copies(executor, jobs, [True, False])
    assert found.shown is not None
    assert unasked.shown is None
    assert found.shown.shape == (*shown, 3)
    small = (
        torch.nn.functional.interpolate(smooth_picture, shown, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        * 255
    )
    assert float((torch.from_numpy(found.shown).float() - small).abs().mean()) < 8
