"""The chain as one compiled function of fixed shapes: unpack, reconstruct, denoise, preprocess, network.

On a GPU, frames of a known size are padded to a full batch and run through two compiled functions, each one CUDA graph.
The first maps the cameras' seeds to the masks of kept pixels, the second maps the pixels to the classes. Between them,
the host decodes compressed frames. Frames of other sizes run through the same functions uncompiled, and on a CPU all
frames do, unless compilation is requested. Neither function waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import structlog
import torch
from torch import Tensor

from processors.arrivals.job import Shape
from processors.device.precision import Precision, arithmetic
from processors.pipeline import Classification, Pipeline, StageContext, bare
from processors.stages.classify import Ranking
from processors.stages.packed import PackedFrames
from processors.stages.squares import Squares
from processors.stages.unpack import kept_masks, laid_out, place
from schemas.errors import typed_text
from schemas.limits import BLOCK
from schemas.pixels.masks import ROWS

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

Decode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor | None, Squares | None]]
"""A function from the masks `kept` and `sent` (B, 1, H, W) to pixels (P, C) uint8 on the device, two masks, seeds and
the squares of `Pipeline.squares`.

The masks are those of the G frames that decode. The pixels fill the second one in raster order, frame after frame; P is
at least 1. The seeds (G,) int64 are those of the bundle's random stages; None if it has none.
"""

_Verdicts = tuple[Tensor, Tensor | None, Tensor, Tensor, Ranking | None, tuple[Tensor, Tensor] | None]
"""The frames, and the fields of `Classification`."""


class UndecodedFrames(NamedTuple):
    """B frames of one shape before they are decoded.

    `seeds` (B, 2) int64 and `books` (B, ROWS, 8) uint8 are the seed and the codebook of each frame. Alternatively,
    `books` holds the patterns (B, blocks, 8) of its own blocks. `whole` (B,) bool marks probes, whose every pixel was
    sent.
    """

    seeds: Tensor
    books: Tensor
    whole: Tensor
    shape: Shape
    decode: Decode


@dataclass(frozen=True, slots=True)
class _CompiledShape:
    """The compiled functions for one shape of frames: always `batch` of them."""

    batch: int
    masks: Callable[..., Any]
    verdicts: Callable[..., Any]


class CompiledPipeline:
    """A pipeline on its device, compiled for the shapes of `compile_for`. All calls come from one thread.

    Only torch modules can be compiled: bundles in other formats than safetensors run uncompiled.
    """

    def __init__(self, pipeline: Pipeline, *, compiles: bool = False, precision: Precision = "float32") -> None:
        self.pipeline = pipeline
        self.precision: Precision = precision
        self._device = pipeline.bundle.device
        self._compiles = compiles and pipeline.bundle.settings.format == "safetensors"
        self._compiled: dict[Shape, _CompiledShape] = {}
        self.pads = self._device.type == "cuda"
        """True if a partial batch runs through the compiled functions: on a GPU it takes the same time."""

    @property
    def shapes(self) -> list[Shape]:
        """The compiled shapes."""
        return list(self._compiled)

    @torch.inference_mode()
    def compile_for(self, shape: Shape, batch: int) -> bool:
        """Compile for batches of up to `batch` frames of one shape, and run the result.

        Returns false if compilation is off or fails: the log has the reason, and the shape runs uncompiled. The same
        holds for frames whose path through the chain depends on their number of pixels.
        """
        if not self._compiles or self.pipeline.scales(shape.height, shape.width):
            return False
        mode = "reduce-overhead" if self._device.type == "cuda" else None
        seeds = torch.zeros(batch, 2, dtype=torch.int64, device=self._device)
        books = torch.zeros(batch, ROWS, BLOCK, dtype=torch.uint8, device=self._device)
        whole = torch.ones(batch, dtype=torch.bool, device=self._device)
        draws = torch.zeros(batch, dtype=torch.int64, device=self._device) if self.pipeline.bundle.random else None
        pixels = torch.zeros(batch * shape.height * shape.width, shape.channels, dtype=torch.uint8, device=self._device)
        try:
            self._compiled[shape] = _CompiledShape(
                batch,
                torch.compile(_own_code(_masks_of(shape)), mode=mode, dynamic=False, fullgraph=True),
                torch.compile(_own_code(_verdicts_of(self.pipeline)), mode=mode, dynamic=False, fullgraph=True),
            )
            # The first run compiles, the second records the graph, the third replays it.
            for _ in range(3):
                self(UndecodedFrames(seeds, books, whole, shape, lambda kept, sent: (pixels, kept, sent, draws, None)))
        except Exception as error:  # a compiler or a user's network may raise anything
            self._give_up(shape, error)
            return False
        return True

    def __call__(
        self, batch: UndecodedFrames, stage: StageContext = bare
    ) -> tuple[Tensor | PackedFrames, Classification] | None:
        """Return the frames (G, C, H, W) in [0, 1] as they were sent and the chain's results; None if G is 0.

        Frames that may go straight to the network's scale stay packed on a CPU. The results of a compiled function are
        valid until the next call; it is one stage, whose time counts as `classify`.
        """
        with stage("unpack"):
            pixels, kept, sent, draws, squares = self._decoded(batch)
            if not len(kept):
                return None
            compiled = self._for(batch.shape, len(kept))
            frames = self._frames(pixels, kept, sent) if compiled is None else None
        with arithmetic(self._device, self.precision):
            if compiled is None:
                assert frames is not None
                return frames, self.pipeline(frames, kept, stage, seeds=draws, squares=squares)
            try:
                with stage("classify"):
                    return _fused(compiled, batch.shape, pixels, kept, sent, draws)
            except Exception as error:
                self._give_up(batch.shape, error)
                raise

    def frames(self, batch: UndecodedFrames) -> Tensor | PackedFrames | None:
        """Return the frames of a call without the chain's results. They stay valid after the next call."""
        pixels, kept, sent, _, _ = self._decoded(batch)
        return self._frames(pixels, kept, sent) if len(kept) else None

    def _decoded(self, batch: UndecodedFrames) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Squares | None]:
        return batch.decode(*self._masks(batch.seeds, batch.books, batch.whole, batch.shape))

    def _frames(self, pixels: Tensor, kept: Tensor, sent: Tensor) -> Tensor | PackedFrames:
        if self._device.type == "cpu" and self.pipeline.scales(*sent.shape[2:]):
            return PackedFrames(pixels, sent, kept)
        return place(pixels, sent)

    def _masks(self, seeds: Tensor, books: Tensor, whole: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        compiled = self._for(shape, len(seeds))
        if compiled is None or books.shape[1] != ROWS:
            return _masks_of(shape)(seeds, books, whole)
        _next_step(self._device)
        kept, sent = compiled.masks(*(_padded(x, compiled.batch) for x in (seeds, books, whole)))
        # A graph's next run overwrites its results.
        return kept[: len(seeds)].clone(), sent[: len(seeds)].clone()

    def _for(self, shape: Shape, count: int) -> _CompiledShape | None:
        compiled = self._compiled.get(shape)
        if compiled is None or count > compiled.batch:
            return None
        return compiled if self.pads or count == compiled.batch else None

    def _give_up(self, shape: Shape, error: Exception) -> None:
        if self._compiled.pop(shape, None) is not None:
            log.warning("compilation_failed", shape=shape, error=typed_text(error))


def _own_code(function: Callable[P, R]) -> Callable[P, R]:
    """Return the same function with its own code object: torch caches compiled functions by code.

    Otherwise two equal models would share a compiled function, although a CUDA graph is for one thread. In addition,
    torch compiles one code object at most eight times.
    """
    assert isinstance(function, FunctionType)
    own = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, closure=function.__closure__
    )
    return cast("Callable[P, R]", own)


def _masks_of(shape: Shape) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def masks(seeds: Tensor, books: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.arange(len(seeds), device=seeds.device)
        if books.shape[1] == ROWS:
            kept = kept_masks(seeds, books, own, shape.height, shape.width)
        else:
            kept = laid_out(books, shape.height, shape.width)
        # On a GPU the check takes longer than it saves; a compiler cannot make it.
        if kept.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(whole.any()):
            return kept, kept
        return kept, kept | whole[:, None, None, None]

    return masks


def _verdicts_of(pipeline: Pipeline) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], _Verdicts]:
    def verdicts(pixels: Tensor, kept: Tensor, sent: Tensor, draws: Tensor | None) -> _Verdicts:
        frames = place(pixels, sent)
        found = pipeline(frames, kept, seeds=draws)
        return frames, found.rebuilt, found.class_id, found.confidence, found.ranked, found.judged

    return verdicts


def _fused(
    compiled: _CompiledShape, shape: Shape, pixels: Tensor, kept: Tensor, sent: Tensor, draws: Tensor | None
) -> tuple[Tensor, Classification]:
    count = len(kept)
    pixels = _padded(pixels, compiled.batch * shape.height * shape.width)
    kept, sent = _padded(kept, compiled.batch), _padded(sent, compiled.batch)
    draws = None if draws is None else _padded(draws, compiled.batch)
    _next_step(pixels.device)
    frames, rebuilt, class_id, confidence, best, judged = compiled.verdicts(pixels, kept, sent, draws)
    whole = None if rebuilt is None else rebuilt[:count]
    return frames[:count], Classification(
        whole, class_id[:count], confidence[:count], _first(best, count),
        None if judged is None else (judged[0][:count], judged[1][:count]),
    )  # fmt: skip


def _first(best: Ranking | None, count: int) -> Ranking | None:
    if best is None:
        return None
    group, confidence = (None if each is None else each[:count] for each in (best.group_id, best.group_confidence))
    return Ranking(best.class_ids[:count], best.confidences[:count], group, confidence)


def _next_step(device: torch.device) -> None:
    """Mark the results of earlier graphs as no longer read."""
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # no annotations


def _padded(x: Tensor, count: int) -> Tensor:
    """Return `x` (N, ...) padded with zeros to `count`."""
    if len(x) == count:
        return x
    longer = x.new_zeros(count, *x.shape[1:])
    longer[: len(x)] = x
    return longer
