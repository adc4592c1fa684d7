"""The compiled pipeline, compared with the uncompiled one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from processors.arrivals.job import Shape
from processors.bundle import Bundle, load_bundle
from processors.device import compiled_pipeline as module
from processors.device.batch_executor import BatchExecutor
from processors.device.compiled_pipeline import CompiledPipeline, UndecodedFrames
from processors.device.precision import choose_precision
from processors.pipeline import Classification, Pipeline
from processors.stages.unpack import kept_masks, place
from schemas.limits import BLOCK
from schemas.messages.frame import Encoding
from schemas.pixels.masks import ROWS
from schemas.pointillist_pb2 import LOSSLESS, RAW
from tests.processors.tiny import (
    batch_executor,
    classify_copies,
    payload,
    picture,
    tiny_bundle,
    verified_job,
    write_bundle,
)

SHAPE = Shape(24, 40, 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def uncompiled(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
    return function


def sent_frames(count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pixels for all frames, seeds, codebooks, and a flag for each whole frame."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count * SHAPE.height * SHAPE.width, 3), generator=generator, dtype=torch.uint8)
    seeds = torch.randint(0, 2**32, (count, 2), generator=generator)
    books = torch.randint(0, 256, (count, ROWS, BLOCK), generator=generator, dtype=torch.uint8)
    whole = torch.arange(count) == 1
    return pixels.to(device), seeds.to(device), books.to(device), whole.to(device)


def run(compiled: CompiledPipeline, count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Classification]:
    pixels, seeds, books, whole = sent_frames(count, device)
    with torch.inference_mode():
        done = compiled(
            UndecodedFrames(
                seeds, books, whole, SHAPE, lambda kept, sent: (pixels[: int(sent.sum())], kept, sent, None, None)
            )
        )
    assert done is not None
    frames, found = done
    assert isinstance(frames, Tensor)
    return frames, found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each call of a compiled pipeline appends its number of frames."""
    seen: list[int] = []
    original = module._fused

    def fused(*arguments: Any) -> Any:
        seen.append(len(arguments[3]))
        return original(*arguments)

    monkeypatch.setattr(module, "_fused", fused)
    return seen


def assert_same(got: tuple[Tensor, Classification], wanted: tuple[Tensor, Classification]) -> None:
    torch.testing.assert_close(got[0], wanted[0])
    torch.testing.assert_close(got[1].rebuilt, wanted[1].rebuilt, atol=1e-5, rtol=0)
    assert got[1].class_id.tolist() == wanted[1].class_id.tolist()
    torch.testing.assert_close(got[1].confidence, wanted[1].confidence, atol=1e-5, rtol=0)


def test_the_compiled_pipeline_equals_unpack_followed_by_the_pipeline(bundle: Bundle) -> None:
    pixels, seeds, books, whole = sent_frames(3)
    frames, found = run(CompiledPipeline(Pipeline(bundle)), 3)
    with torch.inference_mode():
        kept = kept_masks(seeds, books, torch.arange(3), SHAPE.height, SHAPE.width)
        sent = kept | whole[:, None, None, None]
        wanted = place(pixels, sent)
        assert_same((frames, found), (wanted, Pipeline(bundle)(wanted, kept)))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_padded_batch_gives_the_results_of_the_uncompiled_pipeline(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(torch, "compile", uncompiled)
    compiled = CompiledPipeline(Pipeline(bundle), compiles=True)
    compiled.pads = True
    assert compiled.compile_for(SHAPE, 5)
    seen = counted(monkeypatch)
    assert_same(run(compiled, count), run(CompiledPipeline(Pipeline(bundle)), count))
    assert seen == [count]


def test_without_padding_only_full_batches_are_compiled_and_larger_ones_never(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", uncompiled)
    compiled = CompiledPipeline(Pipeline(bundle), compiles=True)
    assert compiled.compile_for(SHAPE, 2)
    seen = counted(monkeypatch)
    for count in (1, 2, 3):
        assert_same(run(compiled, count), run(CompiledPipeline(Pipeline(bundle)), count))
    assert seen == [2]


@pytest.mark.slow
def test_the_whole_chain_compiles_to_one_graph_and_two_models_share_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compile with `fullgraph`, which fails if the chain waits for the device or leaves torch."""
    compiler, graphs = torch.compile, []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(compiler, backend=backend))
    pipelines = [CompiledPipeline(Pipeline(bundle, "plate"), compiles=True) for _ in range(2)]
    assert all(compiled.compile_for(SHAPE, 2) for compiled in pipelines)
    assert len(graphs) == 2 * len(pipelines)
    assert_same(run(pipelines[1], 2), run(CompiledPipeline(Pipeline(bundle, "plate")), 2))


def test_a_pipeline_that_cannot_be_compiled_runs_uncompiled(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **_: object) -> Callable[..., Any]:
        def fail(*_: object) -> None:
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    compiled = CompiledPipeline(Pipeline(bundle), compiles=True)
    assert not compiled.compile_for(SHAPE, 2)
    assert compiled.shapes == []
    assert_same(run(compiled, 2), run(CompiledPipeline(Pipeline(bundle)), 2))


def test_a_compiled_program_that_fails_is_dropped_and_its_frames_are_retried(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", uncompiled)
    compiled = CompiledPipeline(Pipeline(bundle), compiles=True)
    executor = batch_executor(bundle)
    executor = BatchExecutor(compiled, executor._metrics)
    executor.warm(2)
    assert Shape(32, 32, 3) in compiled.shapes

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the device")

    monkeypatch.setattr(module, "_fused", fail)
    jobs = classify_copies(executor, [verified_job(payload("site/cam-0", i)) for i in range(2)])
    assert all(job.error is None for job in jobs)
    assert Shape(32, 32, 3) not in compiled.shapes


def test_nothing_is_compiled_unless_requested(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    compiled = CompiledPipeline(Pipeline(bundle))
    assert not compiled.compile_for(SHAPE, 2)


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
def test_classifying_through_a_compiled_program_changes_no_verdict(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, profile: int
) -> None:
    monkeypatch.setattr(torch, "compile", uncompiled)
    plain = batch_executor(bundle)
    compiled = CompiledPipeline(plain.pipeline, compiles=True)
    compiled.pads = True
    executor = BatchExecutor(compiled, plain._metrics)
    executor.warm(8)
    encoding = Encoding(16, probe_share=0.5, profile=profile)
    batch = [verified_job(payload("site/cam-0", i, encoding=encoding, shown=picture(i))) for i in range(5)]
    for got, wanted in zip(*(classify_copies(each, batch, [True] * 5) for each in (executor, plain)), strict=True):
        assert got.error is wanted.error is None
        assert got.class_id == wanted.class_id
        assert got.confidence == pytest.approx(wanted.confidence, abs=1e-5)
        assert (got.probe is None) == (wanted.probe is None)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_program_on_a_gpu_agrees_with_the_cpu(bundle: Bundle, tmp_path: Path) -> None:
    """Compare the classes, and the rebuilt pixels within .01: `bf16` keeps 8 bits of the restorer's correction."""
    pipeline = Pipeline(load_bundle(write_bundle(tmp_path / "bundle"), torch.device("cuda")))
    compiled = CompiledPipeline(pipeline, compiles=True, precision=choose_precision(pipeline))
    assert compiled.compile_for(SHAPE, 8)
    for count in (8, 3, 8):
        frames, found = run(compiled, count, "cuda")
        wanted, exact = run(CompiledPipeline(Pipeline(bundle)), count)
        torch.testing.assert_close(frames.cpu(), wanted)
        assert found.rebuilt is not None
        torch.testing.assert_close(found.rebuilt.cpu(), exact.rebuilt, atol=0.01, rtol=0)
        assert found.class_id.tolist() == exact.class_id.tolist()
        torch.testing.assert_close(found.confidence.cpu(), exact.confidence, atol=0.02, rtol=0)
