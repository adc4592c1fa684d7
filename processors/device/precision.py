"""The arithmetic of a GPU's tensor units: faster and coarser than float32, used only if it changes no verdict."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, cast

import structlog
import torch
import torch.nn.functional as F
from torch import Tensor

from processors.pipeline import Pipeline
from schemas.errors import ConfigError, first_line

Precision = Literal["float32", "tf32", "bf16"]
"""`tf32` rounds the factors of products to 10 bits, `bf16` (autocast) factors and activations to 7."""

LOGIT_TOLERANCE = 0.02
"""Tolerance of a logit as a share of the range of all logits in the check."""

SIMULATED_FRAMES = 64
OVERLAY_FRAMES = 192
DROP_RATIO = 0.25

log = structlog.get_logger()


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute with `precision` inside the context. On a CPU `tf32` is float32."""
    tf32 = _TF32.be(precision != "float32") if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"), tf32:
        yield


class _Switch:
    """torch's process-wide tf32 flag: threads that want the same value share it, others wait.

    A model that loads next to the live one must change neither its arithmetic nor the guards of its compiled functions.
    The lock is not re-entrant.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users = 0
        self._on = False
        self._before = (False, False)

    @contextmanager
    def be(self, on: bool) -> Iterator[None]:
        """Allow or forbid tf32 inside the context."""
        with self._free:
            self._free.wait_for(lambda: not self._users or self._on == on)
            if not self._users:
                self._before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self._on = on
            self._users += 1
        try:
            yield
        finally:
            with self._free:
                self._users -= 1
                if not self._users:
                    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before
                    self._free.notify_all()


_TF32 = _Switch()


def choose_precision(pipeline: Pipeline, wanted: str = "auto") -> Precision:
    """Return the coarsest arithmetic of a GPU under which `verdicts_hold`, or the `wanted` one.

    A CPU gets float32: `processors.device.backends` chooses faster arithmetic there. Raises ConfigError for an
    arithmetic that the GPU lacks.
    """
    if pipeline.bundle.device.type != "cuda":
        return "float32"
    if wanted != "auto":
        have = ("float32", "tf32", "bf16") if torch.cuda.is_bf16_supported() else ("float32", "tf32")
        if wanted not in have:
            raise ConfigError(f"precision: expected {', '.join(have)} on this GPU, got {wanted}. Choose one of these.")
        return cast("Precision", wanted)
    candidates: tuple[Precision, ...] = ("bf16", "tf32") if torch.cuda.is_bf16_supported() else ("tf32",)
    for candidate in candidates:
        try:
            if verdicts_hold(pipeline, candidate):
                return candidate
        except RuntimeError as error:  # a network that this precision cannot run
            log.info("precision_rejected", precision=candidate, error=first_line(error))
    return "float32"


@torch.inference_mode()
def verdicts_hold(pipeline: Pipeline, precision: Precision, tolerance: float = LOGIT_TOLERANCE) -> bool:
    """Return whether the chain's verdicts under `precision` equal those in float32, on fixed frames with a quarter
    dropped.

    The frames are the bundle's STRIP overlays and simulated smooth ones, of the network's size. No class may change,
    and no logit may move by more than `tolerance` of the logits' range.
    """
    frames, kept = _fixed_frames(pipeline)
    device = pipeline.bundle.device
    seeds = pipeline.bundle.seeds(len(frames), torch.Generator().manual_seed(0))
    with arithmetic(device, "float32"):
        exact = pipeline.logits(frames, kept, seeds).float()
    with arithmetic(device, precision):
        coarse = pipeline.logits(frames, kept, seeds).float()
    moved = (coarse - exact).abs().amax()
    same = bool((coarse.argmax(1) == exact.argmax(1)).all())
    return same and bool(moved <= tolerance * (exact.amax() - exact.amin()))


def _fixed_frames(pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    wanted, overlays = pipeline.bundle.settings.input, pipeline.bundle.overlays
    size = wanted.height, wanted.width
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(SIMULATED_FRAMES, wanted.channels, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size, mode="bicubic", align_corners=False)
    frames = (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1).to(pipeline.bundle.device)
    if overlays is not None:
        frames = torch.cat((overlays[:OVERLAY_FRAMES], frames))
    kept = torch.rand(len(frames), 1, *size, generator=generator) >= DROP_RATIO
    return frames, kept.to(pipeline.bundle.device)
