"""The chain of stages: unpack, reconstruct, denoise, preprocess, classify; and STRIP. Pure torch, no Kafka.

The lab evaluates the same chain that runs live. Under the policy `resize`, frames larger than the network's input are
resampled to its size by their kept pixels (`processors.stages.at_scale`) and restored there. Other frames are rebuilt
first. Gradients flow through each stage that has them: call the chain under `torch.inference_mode()` if you need none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.bundle import Bundle
from processors.bundle.strip_table import (
    DISAGREEMENT,
    ENTROPY,
    LAYER_DISAGREEMENT,
    SCALED_NORMS,
    TYPICALITY,
    PValues,
)
from processors.stages.at_scale import at_scale, density, reach
from processors.stages.classify import Ranking, classify, ranked
from processors.stages.denoise import denoise
from processors.stages.disagreement import DROPS, drop_agreement, drop_masks, repeated
from processors.stages.drop import drop
from processors.stages.learned import SMALL_SIDE, Restorers, reconstruct_learned, shipped_restorers
from processors.stages.modes import DenoiseSettings, Mode, usual_denoise
from processors.stages.nearest import reconstruct_nearest
from processors.stages.packed import PackedFrames
from processors.stages.planar import PlanarFrames, Unplaced
from processors.stages.plate import reconstruct_plate
from processors.stages.preprocess.contract import seeds_of_sums
from processors.stages.reconstruct import reconstruct
from processors.stages.resample import fitted, resize, window
from processors.stages.scaled_norms import ScaledNorms, doubt, label_odds
from processors.stages.squares import Squares, cut_out, square
from processors.stages.strip import StripResult, most_at_once, strip
from processors.stages.typicality import FeatureValues
from schemas.errors import StageError
from schemas.messages.moving import Box

SCALED_FROM: Final = 1.0
"""Density, kept pixels for each pixel of the network's input, from which a frame is resampled straight to that scale.

With fewer pixels the resampling blurs. `lab.experiments.scale` measures this rule and the next two; ADR 16
gives the reasons.
"""

SMALL_SCALED_FROM: Final = 3.0
"""The same density for frames up to `SMALL_SIDE`: rebuilding those whole is cheap, and its weights were trained on
attacks.
"""

RESTORED_BELOW: Final = 2.0
"""Density up to which every picture at the network's scale is restored. Above it, nothing is missing."""

RESTORED_PIXELS: Final = 64 * 64
"""Input size of the network up to which pictures of any density are restored. It costs an attacker one or two
percentage points of success; at 224×224 it takes as much time as the network.
"""

WINDOW_MARGIN: Final = 64
"""Pixels around the window of the policy `crop` that are rebuilt with it: the reach of the reconstructions."""

StageContext = Callable[[str], AbstractContextManager[None]]
"""A context around each stage, by its name: a clock, or a record of the stage of an error."""


def bare(stage: str) -> AbstractContextManager[None]:
    """Return an empty context for a stage."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Classification:
    """The chain's results: class index (B,), its probability (B,), and `rebuilt` (B, C, H, W) in [0, 1].

    `rebuilt` holds the frames in their own size; None if the chain did not need them. `ranked` has the best classes and
    groups; None unless the bundle ranks them. `judged` has the network's input before the bundle's stages, and the
    logits (B, classes); None unless the bundle has a drift reference.
    """

    rebuilt: Tensor | None
    class_id: Tensor
    confidence: Tensor
    ranked: Ranking | None = None
    judged: tuple[Tensor, Tensor] | None = None


class Pipeline:
    """The stages with their settings and the network of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        mode: Mode = "default",
        denoise: DenoiseSettings | None = None,
        restorers: Restorers | None = None,
    ) -> None:
        """`restorers` are the networks of the mode `default`; torch runs them unless others are given."""
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
        # Loaded here, because a compiler cannot follow the loading of a file.
        self._restorers = (restorers or shipped_restorers(bundle.device)) if mode == "default" else None
        # The threshold holds for the chain of the calibration.
        usual = mode == "default" and self.denoise == usual_denoise(mode)
        calibrated = strip is not None and strip.combined is not None
        # None is this chain itself: a chain that refers to itself would keep its networks until the next collection.
        self._calibrated = Pipeline(bundle) if calibrated and not usual else None

    def scales(self, height: int, width: int) -> bool:
        """Return whether frames of this size may be resampled by their kept pixels; each frame's mask decides then."""
        wanted = self.bundle.settings.input
        larger = height >= wanted.height and width >= wanted.width and height * width > wanted.height * wanted.width
        return larger and wanted.policy in ("resize", "motion")

    def squares(self, boxes: Sequence[Box | None], height: int, width: int) -> Squares | None:
        """Return the squares that replace frames of this size under the policy `motion`.

        `boxes` are the motion boxes of the frames. The result is None if no frame is replaced.
        """
        wanted = self.bundle.settings.input
        if wanted.policy != "motion" or not any(boxes) or not self.scales(height, width):
            return None
        least = max(wanted.height, wanted.width)
        return [None if box is None else square(box, height, width, least) for box in boxes]

    def rebuild(self, frames: Tensor, kept: Tensor, stage: StageContext = bare, denoised: bool = True) -> Tensor:
        """Reconstruct whole frames, then denoise them: (B, C, H, W) in [0, 1] to the same.

        Values of dropped pixels, where `kept` (B, 1, H, W) is False, are not read: a probe's result is the same as if
        its camera had dropped them.
        """
        with stage("reconstruct"):
            if self._restorers is not None:
                filled = reconstruct_learned(frames, kept, self._restorers.of(*frames.shape[2:]))
            else:
                filled = reconstruct(frames, kept, self.mode)
        return self._denoise(filled, stage) if denoised else filled

    def _denoise(self, frames: Tensor, stage: StageContext) -> Tensor:
        with stage("denoise"):
            if self.denoise.sigma == 0:
                return frames
            return denoise(frames, self.denoise.method, self.denoise.sigma)

    def network_input(
        self,
        frames: Tensor | Unplaced,
        kept: Tensor,
        stage: StageContext = bare,
        *,
        denoised: bool = True,
        squares: Squares | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the input of `Bundle.logits` for frames (B, C, H, W) in [0, 1], in the form of `Bundle.prepare`.

        The bundle's stages come after that. A frame with one of the `squares` is replaced by it. The second result is
        that of `rebuild`; None if some of the frames were not rebuilt, or only in part.
        """
        height, width = frames.shape[2:]
        wanted = self.bundle.settings.input
        if squares is not None:
            return self._input_with_squares(frames, kept, squares, stage, denoised), None
        if self.scales(height, width):
            return self._input_at_scale(frames, kept, stage, denoised)
        frames = _placed(frames)
        if wanted.policy == "crop":
            rows, columns = (
                window(side, middle, WINDOW_MARGIN) for side, middle in ((height, wanted.height), (width, wanted.width))
            )
            if rows.cut or columns.cut:
                part = (..., rows.outer, columns.outer)
                around = self.rebuild(frames[part], kept[part], stage, denoised)
                return self.bundle.prepare(around[..., rows.inner, columns.inner]), None
        rebuilt = self.rebuild(frames, kept, stage, denoised)
        return self.bundle.prepare(rebuilt), rebuilt

    def _input_with_squares(
        self, frames: Tensor | Unplaced, kept: Tensor, squares: Squares, stage: StageContext, denoised: bool
    ) -> Tensor:
        cut = [(i, each) for i, each in enumerate(squares) if each is not None]
        whole = [i for i, each in enumerate(squares) if each is None]
        parts = []
        with stage("reconstruct"):
            for i, each in cut:
                part, known = cut_out(frames, kept, i, each)
                # Squares are filled and not restored: a restoration costs as much as the network.
                parts.append(_filled(*_at_scale([0], part, known, *self._size)))
        if denoised:
            parts = [self._denoise(each, stage) for each in parts]
        parts = [self.bundle.prepare(each) for each in parts]
        if whole:
            parts.append(self._input_at_scale(frames[whole], kept[whole], stage, denoised)[0])
        return _in_order(parts, [i for i, _ in cut] + whole)

    def _input_at_scale(
        self, frames: Tensor | Unplaced, kept: Tensor, stage: StageContext, denoised: bool
    ) -> tuple[Tensor, Tensor | None]:
        size = self._size
        densities = frames.density(*size) if isinstance(frames, PlanarFrames) else density(kept, *size).tolist()
        whole, restored, filled = self._ways(densities, min(kept.shape[2:]))
        if len(whole) == len(frames):
            rebuilt = self.rebuild(_placed(frames), kept, stage, denoised)
            return self.bundle.prepare(rebuilt), rebuilt
        parts = []
        if whole:
            parts.append(resize(self.rebuild(*_some(whole, _placed(frames), kept), stage, denoised), *size))
        if restored:
            with stage("reconstruct"):
                pictures, known = _at_scale(restored, frames, kept, *size)
            parts.append(self.rebuild(pictures, known, stage, denoised))
        if filled:
            with stage("reconstruct"):
                pictures = _filled(*_at_scale(filled, frames, kept, *size))
            parts.append(self._denoise(pictures, stage) if denoised else pictures)
        return self.bundle.prepare(_in_order(parts, whole + restored + filled)), None

    @property
    def _size(self) -> tuple[int, int]:
        return self.bundle.settings.input.height, self.bundle.settings.input.width

    def ways(self, kept: Tensor) -> tuple[list[int], list[int], list[int]]:
        """Return the positions of frames that are rebuilt whole, restored at scale, and only filled, by their masks (B,
        1, H, W).
        """
        return self._ways(density(kept, *self._size).tolist(), min(kept.shape[2:]))

    def _ways(self, densities: Sequence[float], shorter: int) -> tuple[list[int], list[int], list[int]]:
        height, width = self._size
        scaled_from = SMALL_SCALED_FROM if shorter <= SMALL_SIDE else SCALED_FROM
        restored_below = math.inf if height * width <= RESTORED_PIXELS else RESTORED_BELOW
        whole = [i for i, each in enumerate(densities) if each < scaled_from]
        restored = [i for i, each in enumerate(densities) if scaled_from <= each < restored_below]
        return whole, restored, [i for i, each in enumerate(densities) if each >= max(scaled_from, restored_below)]

    def at_own_scale(
        self, frames: Tensor | Unplaced, kept: Tensor, patch: tuple[int, int]
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return a frame (1, C, H, W), its mask and a patch of (rows, columns) at the scale at which it is restored.

        The patch at that scale covers every pixel that the patch can change (`processors.stages.at_scale.reach`).
        """
        height, width = kept.shape[2:]
        if not self.scales(height, width) or self.ways(kept)[0]:
            return _placed(frames), kept, patch
        pictures, known = _at_scale([0], frames, kept, *self._size)
        return pictures, known, (reach(patch[0], height, self._size[0]), reach(patch[1], width, self._size[1]))

    def logits(self, frames: Tensor, kept: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return the logits (B, classes) of the whole chain, for an attacker who has the chain.

        `seeds` (B,) int64 determine the bundle's random stages. None, the case of an attacker without the cameras'
        keys, draws seeds from torch's global generator.
        """
        return self.bundle.logits(self.network_input(frames, kept)[0], seeds)

    def __call__(
        self,
        frames: Tensor | Unplaced,
        kept: Tensor,
        stage: StageContext = bare,
        *,
        seeds: Tensor | None = None,
        squares: Squares | None = None,
    ) -> Classification:
        """Classify frames (B, C, H, W) in [0, 1] with their masks (B, 1, H, W), True where a pixel was kept.

        `Unplaced` frames, whose own mask is `kept`, are placed only if the chain needs whole frames. `seeds` are those
        of `logits`, `squares` those of `see`.
        """
        seen, rebuilt = self.network_input(frames, kept, stage, squares=squares)
        pictures = seen
        if self.bundle.stages:
            with stage("preprocess"):
                seen = self.bundle.preprocess(seen, seeds)
        with stage("classify"):
            logits = self.bundle.network_logits(seen).float()
            if (temperature := self.bundle.settings.temperature) != 1:
                logits = logits / temperature
            class_id, confidence = classify(logits)
            best = ranked(logits, self.bundle.groups) if self.bundle.settings.ranks else None
        judged = (pictures, logits) if self.bundle.drift is not None else None
        return Classification(rebuilt, class_id, confidence, best, judged)

    def show(self, frames: Tensor | Unplaced, kept: Tensor, longest: int, rebuilt: Tensor | None = None) -> Tensor:
        """Return frames (B, C, H, W) for people, (B, C, h, w) in [0, 1]: the longer side has at most `longest` pixels.

        `rebuilt` holds the chain's rebuilt frames, if any. Frames that nobody classifies do not get a restoration: the
        plate fills their holes.
        """
        size = fitted(frames.shape[2], frames.shape[3], longest)
        if rebuilt is not None:
            return resize(rebuilt, *size)
        if size == tuple(frames.shape[2:]):
            return reconstruct_plate(_placed(frames), kept)
        if isinstance(frames, PackedFrames):
            return reconstruct_plate(*frames.for_people(*size))
        return reconstruct_plate(*_at_scale(list(range(len(frames))), frames, kept, *size))

    def show_sent(self, frames: Tensor | Unplaced, longest: int) -> Tensor:
        """Return frames (B, C, H, W) as they were sent, zero at missing pixels, in the format of `show`.

        If the result is smaller than the frame, each pixel is a mean of several, holes included.
        """
        size = fitted(frames.shape[2], frames.shape[3], longest)
        if isinstance(frames, Unplaced) and size != tuple(frames.shape[2:]):
            return frames.as_sent(*size)
        return resize(_placed(frames), *size)

    def probe_input(self, pictures: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return STRIP's input, (B, channels, height, width) of the network, for whole pictures (B, C, H, W) in [0, 1].

        Under the policy `tile` it is the most confident tile, the one that gives the verdict with those `seeds` (B,).
        The bundle's stages run after an overlay is added.
        """
        prepared = self.bundle.prepare(pictures)
        if prepared.ndim == 4:
            return prepared
        preprocessed = self.bundle.preprocess(prepared, seeds)
        every = self.bundle.network_logits(preprocessed.flatten(0, 1)).view(*prepared.shape[:2], -1)
        best = every.softmax(2).amax(2).argmax(1)
        return prepared[torch.arange(len(prepared), device=prepared.device), best]

    def dropped_input(self, frames: Tensor, kept: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return STRIP's input for frames (B, C, H, W) whose pixels are missing where `kept` (B, 1, H, W) is False.

        Each dropped pixel becomes the nearest kept one, as it was sent. The classifier's reconstruction weakens the
        remains of a trigger, by design, and would hide it here; any mixing of pixels does the same.
        """
        if not self.scales(*frames.shape[2:]):
            return self.probe_input(reconstruct_nearest(frames, kept), seeds)
        whole, *scaled = self.ways(kept)
        small = sorted(scaled[0] + scaled[1])
        parts = []
        if whole:
            parts.append(resize(reconstruct_nearest(*_some(whole, frames, kept)), *self._size))
        if small:
            parts.append(reconstruct_nearest(*at_scale(*_some(small, frames, kept), *self._size)))
        return self.probe_input(_in_order(parts, whole + small), seeds)

    def strip(
        self, probes: Tensor, dropped_per_block: int = 0, *, seeds: Tensor | None = None, sequential: bool = True
    ) -> StripResult:
        """Judge the result of `probe_input`, or of `dropped_input` for frames with missing pixels, by the bundle's
        overlays.

        Each sum of a picture and an overlay passes the bundle's stages. Its draw derives from the picture's seed in
        `seeds` (B,). The test is sequential if the bundle has limits for it. Raises StageError if there is no threshold
        for such frames.
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
            accept_by=threshold.accept_statistic,
            usual=self._usual.get(dropped_per_block),
            clamped=settings.clamped,
            seeds=None if seeds is None else seeds_of_sums(seeds, len(self.bundle.overlays)),
        )

    def agreement(self, probes: Tensor, mask_seeds: NDArray[np.uint64], *, seeds: Tensor | None = None) -> Tensor:
        """Return the agreement (B,) in [0, 1] of the result of `probe_input` with its label behind random drops.

        The drops and the reconstruction work at the network's size. The reconstruction is that of the calibration, in
        the mode `default` with its usual denoising. `mask_seeds` (B, 2) determine the masks, see
        `processors.stages.disagreement.drop_masks`. `seeds` (B,) are those of `logits`.
        """
        first = self.bundle.logits(probes, seeds).argmax(1)
        kept = drop_masks(mask_seeds, probes.shape[2], probes.shape[3]).to(probes.device)
        own = None if seeds is None else seeds_of_sums(seeds, DROPS).flatten()
        sent, parts, at_once = repeated(probes, DROPS), [], most_at_once(probes)
        for start in range(0, len(sent), at_once):
            some = slice(start, start + at_once)
            rebuilt = (self._calibrated or self).rebuild(drop(sent[some], kept[some]), kept[some])
            parts.append(self.bundle.logits(rebuilt, None if own is None else own[some]))
        return drop_agreement(first, torch.cat(parts).view(len(probes), DROPS, -1))

    def feature_values(self, probes: Tensor, *, seeds: Tensor | None = None) -> FeatureValues:
        """Return the statistics by the features of the result of `probe_input`, low for a trigger.

        See `processors.stages.typicality`. `seeds` (B,) are those of `logits`. Raises StageError for a bundle without
        features of clean frames.
        """
        features = self.bundle.features
        if features is None:
            raise StageError("typicality: expected a bundle with features of clean frames, this one has none")
        return features.values(self.bundle.normalised(self.bundle.preprocess(probes, seeds)))

    def doubt(self, probes: Tensor, *, seeds: Tensor | None = None) -> Tensor:
        """Return the doubt (B,) in the labels of the result of `probe_input` behind scaled batch norms, low for a
        trigger.

        See `processors.stages.scaled_norms`. `seeds` (B,) are those of `logits`. Raises StageError for a bundle without
        amplified forms.
        """
        scaled = self.bundle.scaled
        if scaled is None:
            raise StageError("scaled norms: expected a bundle with strip.combined.norms, this one has none")
        return self.doubt_of(scaled, probes, seeds)

    def doubt_of(self, scaled: ScaledNorms, probes: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return `doubt` for other amplified forms of the bundle's network."""
        seen = self.bundle.preprocess(probes, seeds)
        labels = replace(self.bundle, network=scaled.network).network_logits(seen).argmax(1)
        forms = (replace(self.bundle, network=form).network_logits(seen).double() for form in scaled.forms)
        return doubt(torch.stack([label_odds(logits, labels) for logits in forms]).mean(0))

    def p_values(
        self, probes: Tensor, bits: NDArray[np.float64], mask_seeds: NDArray[np.uint64], *, seeds: Tensor | None = None
    ) -> PValues:
        """Return the p-values of the result of `probe_input`, by all statistics of the bundle's table `combined`.

        `bits` (B,) are STRIP's entropies. Other arguments are those of `agreement`. Raises StageError for a bundle
        without the table.
        """
        combined = None if self.bundle.settings.strip is None else self.bundle.settings.strip.combined
        if combined is None:
            raise StageError("p-values: expected a bundle with the table strip.combined, this one has none")
        found = {DISAGREEMENT: self.agreement(probes, mask_seeds, seeds=seeds)}
        if TYPICALITY in combined.tails:
            typicality, layers = self.feature_values(probes, seeds=seeds)
            found |= {TYPICALITY: typicality} | ({} if layers is None else {LAYER_DISAGREEMENT: layers})
        if SCALED_NORMS in combined.tails:
            found[SCALED_NORMS] = self.doubt(probes, seeds=seeds)
        return combined.judge({ENTROPY: bits} | {name: each.double().cpu().numpy() for name, each in found.items()})


def deciding_pictures(pipeline: Pipeline, seen: Tensor, rebuilt: Tensor | None, seeds: Tensor | None) -> Tensor:
    """Return the pictures (B, C, H, W) that gave the verdicts on frames.

    `seen` and `rebuilt` are the results of `Pipeline.network_input`, and `seeds` (B,) those of the verdicts. Of tiles
    (B, T, C, H, W), it is the one that STRIP sees too.
    """
    return seen if seen.ndim == 4 or rebuilt is None else pipeline.probe_input(rebuilt, seeds)


def _placed(frames: Tensor | Unplaced) -> Tensor:
    return frames.placed if isinstance(frames, Unplaced) else frames


def _at_scale(
    places: list[int], frames: Tensor | Unplaced, kept: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Apply `processors.stages.at_scale` to the frames at `places`."""
    if isinstance(frames, Unplaced):
        return frames[places].at_scale(height, width)
    return at_scale(*_some(places, frames, kept), height, width)


def _filled(pictures: Tensor, known: Tensor) -> Tensor:
    """Fill pictures of `_at_scale`, which are in [0, 1], where they are not known."""
    if known.device.type == "cpu" and known.numpy().all():
        return pictures
    return reconstruct_plate(pictures, known)


def _some(places: list[int], frames: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames at `places`, without a copy if those are all frames."""
    return (frames, kept) if len(places) == len(frames) else (frames[places], kept[places])


def _in_order(parts: list[Tensor], places: list[int]) -> Tensor:
    """Return the rows of all `parts` in order: the first row belongs at `places[0]` of the result, and so on."""
    if len(parts) == 1:
        return parts[0]
    together = torch.cat(parts)
    return together[torch.tensor(places, device=together.device).argsort()]
