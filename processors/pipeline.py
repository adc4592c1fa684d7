"""The chain of stages: unpack, reconstruct, denoise, classify; and STRIP beside it. Pure torch, no Kafka.

What runs live on a batch is what the lab evaluates. Gradients flow where a stage lets them: who wants none calls it
under `torch.inference_mode()`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from processors.bundle import Bundle
from processors.settings import DenoiseSettings, usual_denoise
from processors.stages.classify import classify
from processors.stages.denoise import denoise
from processors.stages.learned import reconstruct_learned, shipped_restorer
from processors.stages.nearest import reconstruct_nearest
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import Mode, reconstruct
from processors.stages.strip import StripResult, strip
from schemas.errors import StageError

STAGES = ("unpack", "reconstruct", "denoise", "classify", "strip")
"""In the order in which they run; `strip` on a sample of frames only. `unpack` is in `processors.stages.unpack`."""

StageContext = Callable[[str], AbstractContextManager[None]]
"""Entered around each stage with its name: a clock, or a note of where an error came from."""


def bare(stage: str) -> AbstractContextManager[None]:
    """No context around a stage."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Classified:
    """What the chain finds: `rebuilt` (B, C, H, W) in [0, 1], class index (B,) and its probability (B,)."""

    rebuilt: Tensor
    class_id: Tensor
    confidence: Tensor


class Pipeline:
    """The stages with their settings and the network of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        mode: Mode = "default",
        denoise: DenoiseSettings | None = None,
    ) -> None:
        self.bundle = bundle
        self.mode: Mode = mode
        self.denoise = denoise or usual_denoise(mode)
        strip = bundle.settings.strip
        tables = [] if strip is None else [(0, strip), *((each.dropped_per_block, each) for each in strip.dropped)]
        self._usual = {
            dropped: torch.tensor(table.usual_odds_bits, device=bundle.device)
            for dropped, table in tables
            if table.usual_odds_bits
        }
        # Loaded now, for a compiler cannot look into the loading of a file.
        self._restorer = shipped_restorer(bundle.device) if mode == "default" else None

    def rebuild(self, frames: Tensor, kept: Tensor, stage: StageContext = bare) -> Tensor:
        """Reconstruct, then denoise: frames (B, C, H, W) in [0, 1] to the same.

        What stands in dropped pixels, where `kept` (B, 1, H, W) is False, is not read: a probe frame comes out as if
        its camera had dropped them.
        """
        with stage("reconstruct"):
            if self._restorer is not None:
                filled = reconstruct_learned(frames, kept, self._restorer)
            else:
                filled = reconstruct(frames, kept, self.mode)
        with stage("denoise"):
            return denoise(filled, self.denoise.method, self.denoise.sigma)

    def logits(self, frames: Tensor, kept: Tensor) -> Tensor:
        """Logits (B, classes) of the whole chain, as an attacker who knows it would ask for them."""
        return self.bundle.logits(self.bundle.prepare(self.rebuild(frames, kept)))

    def __call__(self, frames: Tensor, kept: Tensor, stage: StageContext = bare) -> Classified:
        """Classify frames (B, C, H, W) in [0, 1] with their masks (B, 1, H, W), True where a pixel was kept."""
        rebuilt = self.rebuild(frames, kept, stage)
        with stage("classify"):
            class_id, confidence = classify(self.bundle.logits(self.bundle.prepare(rebuilt)).float())
        return Classified(rebuilt, class_id, confidence)

    def probe_input(self, pictures: Tensor) -> Tensor:
        """What STRIP looks at, (B, channels, height, width) of the network: whole pictures (B, C, H, W) in [0, 1].

        Under the policy `tile` it is the most confident tile, the one that gives the verdict.
        """
        prepared = self.bundle.prepare(pictures)
        if prepared.ndim == 4:
            return prepared
        every = self.bundle.logits(prepared.flatten(0, 1)).view(*prepared.shape[:2], -1)
        best = every.softmax(2).amax(2).argmax(1)
        return prepared[torch.arange(len(prepared), device=prepared.device), best]

    def dropped_input(self, frames: Tensor, kept: Tensor) -> Tensor:
        """What STRIP looks at of frames (B, C, H, W) whose pixels are missing where `kept` (B, 1, H, W) is False.

        Each dropped pixel is the nearest kept one, as it was sent: the classifier's reconstruction weakens what is left
        of a trigger, as it should, and would hide it here; so does whatever mixes pixels.
        """
        return self.probe_input(reconstruct_nearest(frames, kept))

    def composed_input(self, frames: Tensor, known: Tensor) -> Tensor:
        """What STRIP looks at of frames (B, C, H, W) whose pixels are nearly all `known` (B, 1, H, W).

        What moves is missing, and a thin plate in its place, smooth as most pictures are, leaves the rest as it is.
        """
        return self.probe_input(reconstruct_plate(frames, known))

    def strip(self, probes: Tensor, dropped_per_block: int = 0, *, sequential: bool = True) -> StripResult:
        """Judge what `probe_input` gave, or `dropped_input` where frames lack some pixels, by the bundle's overlays.

        Sequential where the bundle has limits for it. Raises StageError when it has no threshold for such frames.
        """
        settings = self.bundle.settings.strip
        if settings is None or self.bundle.overlays is None:
            raise StageError("STRIP: expected a bundle with overlays, this one has none")
        threshold = settings.threshold(dropped_per_block)
        if threshold is None:
            raise StageError(f"STRIP: expected a threshold for {dropped_per_block} dropped pixels a block, found none")
        return strip(
            probes,
            self.bundle.overlays,
            self.bundle.logits,
            threshold_bits=threshold.threshold_bits,
            rounds=threshold.rounds if sequential else (),
            statistic=threshold.statistic,
            usual=self._usual.get(dropped_per_block),
            clamped=settings.clamped,
        )
