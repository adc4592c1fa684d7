"""All work of the device thread: a batch through the pipeline, and STRIP. Synchronous calls, without Kafka or an event
loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import structlog
import torch
from torch import Tensor

from processors.arrivals.job import FrameJob, PatchCertificate, PreviewKind, Shape, StripFinding
from processors.bundle.model_toml import Scores
from processors.device.certification import Certification, Sticker
from processors.device.codebooks import DeviceCodebooks
from processors.device.compiled_pipeline import CompiledPipeline, UndecodedFrames
from processors.device.decode import DecodedBatch, decoded_batch
from processors.device.drift import DriftSampler
from processors.device.group_masks import GroupMasks
from processors.device.lost_device import lost_device_raised
from processors.device.memory import lacks_memory
from processors.device.precision import arithmetic
from processors.device.probes import probes_of
from processors.metrics import ProcessorMetrics
from processors.pipeline import Classification, deciding_pictures
from processors.settings import ProcessorSettings
from processors.stages.classify import Ranking
from processors.stages.planar import PlanarFrames, Unplaced
from processors.stages.resample import fitted
from processors.stages.scaler import shown_planes
from processors.stages.scenes import SceneMemory
from processors.stages.squares import Squares
from processors.stages.stillness import Stillness
from schemas.batched import batched
from schemas.errors import ConfigError, PointillistError, StageError, typed_text
from schemas.messages.frame import mask_seq
from schemas.messages.moving import unpack_moving
from schemas.pixels.packing import Picture

log = structlog.get_logger()

_CPU_PIXELS = 2**18
_GPU_PIXELS = 2**20
_PLANES_SHARE = 16


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of a setting; ConfigError if CUDA is requested and missing."""
    have = torch.cuda.is_available()
    if wanted == "cuda" and not have:
        raise ConfigError("device: expected CUDA, got none that torch finds. Choose auto or cpu.")
    return torch.device("cuda" if have and wanted != "cpu" else "cpu")


def most_pixels(settings: ProcessorSettings) -> int:
    """Return the limit of height × width × frames of one batch on the device of these settings."""
    on_gpu = choose_device(settings.device).type == "cuda"
    return settings.batch_pixels or (_GPU_PIXELS if on_gpu else _CPU_PIXELS)


class BatchExecutor:
    """Runs the pipeline on batches of frames. All calls come from one thread."""

    def __init__(
        self,
        compiled: CompiledPipeline,
        metrics: ProcessorMetrics,
        preview_side: int = 384,
        sticker: Sticker | None = None,
        *,
        drift_interval_s: float = 15.0,
    ) -> None:
        """Run the pipeline of `compiled`, which compiles nothing by default.

        Previews have at most `preview_side` pixels on their longer side. Labels are certified against `sticker`. The
        drift statistics take one frame every `drift_interval_s`.
        """
        self.compiled = compiled
        self.pipeline = compiled.pipeline
        self._metrics = metrics
        self._device = self.pipeline.bundle.device
        self._stillness = Stillness()
        self.scenes = SceneMemory()
        """The scenes of the cameras, which all models of a processor share."""
        self._preview_side = preview_side
        self._sticker = sticker or Sticker()
        self._codebooks = DeviceCodebooks(self._device)
        self._group_masks = GroupMasks()
        self._stage = ""
        self.drift = DriftSampler(self.pipeline.bundle.drift, drift_interval_s, time.monotonic)

    def count_in(self, metrics: ProcessorMetrics) -> None:
        """Count in other metrics from now on."""
        self._metrics = metrics

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        self._stage = stage
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._metrics.stage(stage, time.perf_counter() - start)

    @torch.inference_mode()
    def classify(self, batch: Sequence[FrameJob]) -> None:
        """Classify a batch of one shape: each job gets its class and the requested pictures, or fails.

        If the batch fails, its frames run one by one, and only those that fail alone get an error. If memory runs out,
        the batch is halved, and a single frame is tried once more.
        """
        planar = [job for job in batch if self._is_planar(job)]
        if 0 < len(planar) < len(batch):
            self.classify(planar)
            self.classify([job for job in batch if not self._is_planar(job)])
        else:
            self._run(batch, self._attempt)

    def _run(
        self, jobs: Sequence[FrameJob], attempt: Callable[[Sequence[FrameJob]], None], *, again: bool = True
    ) -> None:
        """Call `attempt` with jobs; after a failure with one by one, or with each half if memory ran out.

        If memory runs out for a single job and `again` is true, `attempt` is called with it once more.
        """
        try:
            with lost_device_raised(self._device):
                attempt(jobs)
            return
        except (Exception, SystemExit) as error:  # a user's network may raise anything
            if len(jobs) == 1 and not (again and lacks_memory(error)):
                self._fail(jobs[0], error)
                return
            size = -(-len(jobs) // 2) if lacks_memory(error) else 1
            log.warning("batch_failed", stage=self._stage, frames=len(jobs), again_by=size, error=str(error)[:200])
        # Outside the handler, which would keep the failed attempt's tensors alive.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        for some in batched(jobs, size):
            self._run(some, attempt, again=len(jobs) > 1)

    def _fail(self, job: FrameJob, error: BaseException) -> None:
        self._metrics.stage_failed(self._stage)
        known = error if isinstance(error, PointillistError) else StageError(typed_text(error))
        if known is not error and lacks_memory(error):
            # The cause for later steps, without its traceback, which would keep the failed attempt's tensors alive.
            known.__cause__ = MemoryError(str(error))
        job.fail(self._stage, known)

    def _attempt(self, batch: Sequence[FrameJob]) -> None:
        if self._is_planar(batch[0]):
            self._attempt_planes(batch)
            return
        undecoded, parts = self._undecoded(batch)
        done = self.compiled(undecoded, self._clock)
        ((decoded, draws),) = parts
        for index, error in decoded.refused.items():
            self._metrics.stage_failed("unpack")
            batch[index].fail("unpack", error)
        if done is not None:
            good = [batch[index] for index in decoded.good]
            self._conclude(good, *done, decoded.kept, decoded.sent, draws)

    def _undecoded(self, batch: Sequence[FrameJob]) -> tuple[UndecodedFrames, list[tuple[DecodedBatch, Tensor | None]]]:
        """Return what a compiled pipeline takes of a batch, and the list to which its decoding adds one entry."""
        parts: list[tuple[DecodedBatch, Tensor | None]] = []

        def decode(kept: Tensor, sent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Squares | None]:
            decoded = decoded_batch(batch, kept, sent)
            good = [batch[index] for index in decoded.good]
            draws, squares = self._seeds(good), self._squares(good)
            parts.append((decoded, draws))
            return decoded.pixels, decoded.kept, decoded.sent, draws, squares

        seeds = [job.key.frame_seed(job.frame.boot_id, mask_seq(job.frame)) for job in batch]
        whole = [job.frame.whole for job in batch]
        undecoded = UndecodedFrames(
            torch.tensor(seeds, dtype=torch.int64, device=self._device),
            self._codebooks.of(batch, seeds),
            torch.tensor(whole, device=self._device),
            batch[0].shape,
            decode,
        )
        return undecoded, parts

    def batch_pixels(self, job: FrameJob) -> int:
        """Return the pixels for which a frame counts in a batch: as planes it is resampled in strips, one at a time."""
        return max(1, job.shape.pixels // (_PLANES_SHARE if self._is_planar(job) else 1))

    def _is_planar(self, job: FrameJob) -> bool:
        """Return whether a frame is resampled as planes: decoded video of even sides that shrinks, on a CPU."""
        height, width, _ = job.shape
        if job.planes is None or self._device.type != "cpu" or height % 2 or width % 2:
            return False
        return self.pipeline.scales(height, width)

    def _attempt_planes(self, batch: Sequence[FrameJob]) -> None:
        wanted = self.pipeline.bundle.settings.input
        draws = self._seeds(batch)
        with self._clock("unpack"):
            frames = self._group_masks.frames(batch, wanted.height, wanted.width)
        with arithmetic(self._device, self.compiled.precision):
            found = self.pipeline(frames, frames.kept, self._clock, seeds=draws, squares=self._squares(batch))
        self._conclude(batch, frames, found, frames.kept, frames.kept, draws)

    def _conclude(
        self,
        good: Sequence[FrameJob],
        frames: Tensor | Unplaced,
        found: Classification,
        kept: Tensor,
        sent: Tensor,
        draws: Tensor | None,
    ) -> None:
        """Enter the results of a batch."""
        class_ids, confidences = found.class_id.tolist(), found.confidence.tolist()
        best, groups = _ranking(found.ranked, len(good))
        shown: dict[int, Picture] = {}
        as_sent: dict[int, Picture] = {}
        changed: dict[int, float] = {}
        with self._optional("preview", good):
            shown = self._show(good, frames, kept, found.rebuilt)
            as_sent = self._show_sent(good, frames)
        self._stage = "strip"
        probes = probes_of(self.pipeline, good, frames, draws, self._squares(good))
        with self._optional("stillness", good):
            changed = self._changes(good, frames, sent)
        for i, job in enumerate(good):
            if not 0 <= confidences[i] <= 1:  # NaN included
                self._metrics.stage_failed("classify")
                job.fail("classify", StageError(f"expected a confidence from 0 to 1, got {confidences[i]}"))
                continue
            if found.judged is not None and not job.judged_before and self.drift.due:
                one = slice(i, i + 1)
                with self._optional("drift", [job]):
                    seen, logits = (each[one] for each in found.judged)
                    rebuilt, seeds = (None if each is None else each[one] for each in (found.rebuilt, draws))
                    self.drift.sample(deciding_pictures(self.pipeline, seen, rebuilt, seeds), logits)
            job.scores = Scores(class_ids[i], confidences[i], best[i], groups[i])
            job.shown, job.as_sent = shown.get(i), as_sent.get(i)
            job.probe, job.coarse = probes.get(i, (None, None))
            job.changed = changed.get(i, job.changed)

    @contextmanager
    def _optional(self, stage: str, jobs: Sequence[FrameJob]) -> Iterator[None]:
        """Within the context, results are made that no verdict needs: a failure is counted, and the verdicts lack them.

        Raises an error of memory for several jobs: with fewer, it may suffice.
        """
        self._stage = stage
        try:
            with lost_device_raised(self._device):
                yield
        except Exception as error:
            if len(jobs) > 1 and lacks_memory(error):
                raise
            self._metrics.stage_failed(stage)
            log.warning("optional_result_failed", stage=stage, frames=len(jobs), error=str(error)[:200])

    def _changes(self, jobs: Sequence[FrameJob], frames: Tensor | Unplaced, sent: Tensor) -> dict[int, float]:
        """Return the changes by the positions of the frames; under `video` the camera has measured them."""
        places = [i for i, job in enumerate(jobs) if job.planes is None and not job.judged_before]
        if not places or isinstance(frames, PlanarFrames):
            return {}
        if len(places) < len(jobs):
            frames, sent = frames[places], sent[places]
        found = self._stillness.changes([jobs[i].camera_id for i in places], frames, sent)
        return {places[i]: change for i, change in found.items()}

    def _show(
        self, jobs: Sequence[FrameJob], frames: Tensor | Unplaced, kept: Tensor, rebuilt: Tensor | None
    ) -> dict[int, Picture]:
        """Return the rebuilt pictures for people, by the positions of their frames."""
        due = [i for i, job in enumerate(jobs) if job.wanted]
        if not due:
            return {}
        found: dict[int, Picture] = {}
        with self._clock("preview"):
            if isinstance(frames, PlanarFrames) and rebuilt is None:
                size = fitted(frames.shape[2], frames.shape[3], self._preview_side)
                for i in due:
                    planes = jobs[i].planes
                    # A probe's planes have pixels that its drop would not have kept.
                    if planes is not None and not jobs[i].frame.whole:
                        found[i] = shown_planes(planes, *size)
                due = [i for i in due if i not in found]
                if not due:
                    return found
            whole = None if rebuilt is None else rebuilt[due]
            shown = self.pipeline.show(frames[due], kept[due], self._preview_side, whole)
            return found | {i: picture_of(picture) for i, picture in zip(due, shown, strict=True)}

    def _show_sent(self, jobs: Sequence[FrameJob], frames: Tensor | Unplaced) -> dict[int, Picture]:
        """Return the pictures as they were sent, by the positions of their frames."""
        due = [i for i, job in enumerate(jobs) if job.wanted == PreviewKind.BOTH]
        if not due:
            return {}
        with self._clock("preview"):
            shown = self.pipeline.show_sent(frames[due], self._preview_side)
            return {i: picture_of(picture) for i, picture in zip(due, shown, strict=True)}

    def _squares(self, jobs: Sequence[FrameJob]) -> Squares | None:
        if self.pipeline.bundle.settings.input.policy != "motion":
            return None
        height, width, _ = jobs[0].shape if jobs else Shape(1, 1, 1)
        boxes = [unpack_moving(job.frame.moving, height, width) for job in jobs]
        return self.pipeline.squares(boxes, height, width)

    def _seeds(self, jobs: Sequence[FrameJob]) -> Tensor | None:
        """Return the seeds (B,) int64 of the bundle's random stages: a frame's seed is the same on every processor."""
        if not self.pipeline.bundle.random:
            return None
        seeds = [job.key.preprocess_seed(job.frame.boot_id, job.frame.seq) for job in jobs]
        return torch.tensor(seeds, dtype=torch.int64, device=self._device)

    @torch.inference_mode()
    def strip(self, jobs: Sequence[FrameJob]) -> None:
        """Run STRIP on the probes of `jobs`. A job gets STRIP's result, or fails if STRIP fails on it alone."""
        self._run(jobs, self._attempt_strip)

    def _attempt_strip(self, jobs: Sequence[FrameJob]) -> None:
        with self._clock("strip"), arithmetic(self._device, self.compiled.precision):
            pictures = torch.stack([job.probe for job in jobs if job.probe is not None])
            seeds = self._seeds(jobs)
            found = self.pipeline.strip(pictures, seeds=seeds)
            bits, passes = found.entropy_bits.tolist(), found.passes.tolist()
            judged = self._p_values(pictures, found.entropy_bits, map(_mask_seed, jobs), seeds)
        for job, entropy, count, (p_value, statistic) in zip(jobs, bits, passes, judged, strict=True):
            if math.isnan(entropy) or math.isnan(p_value):
                job.fail("strip", StageError(f"STRIP: expected numbers, got entropy {entropy} and p-value {p_value}"))
            else:
                job.finding = StripFinding(
                    entropy, self.strip_threshold_bits, count, p_value, self.p_value_threshold, statistic,
                    self._scene_of(job),
                )  # fmt: skip

    def _scene_of(self, job: FrameJob) -> int | None:
        """Return the number of a probe's scene; None for a probe that another model has judged."""
        if job.coarse is None or job.judged_before:
            return None
        return self.scenes.number((str(job.camera_id), job.frame.boot_id), job.frame.seq, job.coarse)

    def _p_values(
        self, pictures: Tensor, bits: Tensor, mask_seeds: Iterable[tuple[int, int]], seeds: Tensor | None
    ) -> Iterable[tuple[float, str]]:
        """Return each probe's p-value and its most unusual statistic; zeros without a threshold for it."""
        if not self.p_value_threshold:
            return [(0.0, "")] * len(pictures)
        masks = np.array(list(mask_seeds), dtype=np.uint64)
        found = self.pipeline.p_values(pictures, bits.double().cpu().numpy(), masks, seeds=seeds)
        return zip(found.values.tolist(), found.statistics, strict=True)

    @property
    def p_value_threshold(self) -> float:
        """The p-value below which a probe is suspect; 0 without the table `strip.combined`."""
        strip = self.pipeline.bundle.settings.strip
        return 0.0 if strip is None or strip.combined is None else strip.combined.threshold

    @torch.inference_mode()
    def certify(self, job: FrameJob) -> None:
        """Go on with the certificate of a frame by one batch of passes. A job that fails gets none.

        The first call decodes the frame again: few frames are certified, and none keeps its pixels until then.
        """
        precision = self.compiled.precision
        with lost_device_raised(self._device), self._clock("certify"), arithmetic(self._device, precision):
            if job.certification is None:
                undecoded, parts = self._undecoded([job])
                frame = self.compiled.frames(undecoded)
                if frame is None:
                    raise StageError("pixels: expected those of a frame with a class, got none")
                ((decoded, draws),) = parts
                job.certification = Certification(self.pipeline, frame, decoded.kept, draws, self._sticker)
            certificate = job.certification.advance()
        if certificate is not None:
            agrees = certificate.certified and certificate.label == job.class_id
            windows = job.certification.examined(certificate, job.scores)
            job.certified = PatchCertificate(job.certification.side, agrees, windows)

    @property
    def strip_threshold_bits(self) -> float:
        """The entropy in bits below which a probe is suspect; 0 without STRIP."""
        strip = self.pipeline.bundle.settings.strip
        return 0.0 if strip is None else strip.threshold_bits

    @torch.inference_mode()
    def warm(self, batch_frames: int, batch_pixels: int = _CPU_PIXELS) -> float | None:
        """Run the chain on black frames of the network's size and 32×32; return STRIP's seconds for one frame.

        Returns None if the bundle has no STRIP. The second run of each size is timed. A compiled pipeline is compiled
        for these two sizes.
        """
        wanted = self.pipeline.bundle.settings.input
        own = Shape(wanted.height, wanted.width, wanted.channels)
        for shape in sorted({own, Shape(32, 32, 3)}):
            area = shape.height * shape.width
            self.compiled.compile_for(shape, max(1, min(batch_frames, batch_pixels // area)))
            # Small frames of a large network take seconds of it: their large batches are left to the frames themselves.
            seen = max(area, own.height * own.width)
            most = max(1, min(batch_frames, batch_pixels // area, _CPU_PIXELS // seen))
            # One less than the limit: a backend that splits batches makes the parts of each power of two.
            for count in sorted({1, max(1, most - 1), most}):
                kept = torch.ones(count, 1, shape.height, shape.width, dtype=torch.bool, device=self._device)
                kept[..., ::3] = False
                frames = torch.zeros(count, shape.channels, shape.height, shape.width, device=self._device)
                for _ in range(2):
                    self.pipeline(frames, kept)
        if self.pipeline.bundle.overlays is None:
            return None
        probe = self.pipeline.probe_input(torch.zeros(1, own.channels, own.height, own.width, device=self._device))
        seconds = 0.0
        for _ in range(2):
            start = time.perf_counter()
            found = self.pipeline.strip(probe)
            self._p_values(probe, found.entropy_bits, [(0, 0)], None)
            seconds = time.perf_counter() - start
        return seconds


def _mask_seed(job: FrameJob) -> tuple[int, int]:
    """Return the seed of a probe's drops, the same on every processor; an attacker without the key cannot predict
    them.
    """
    return job.key.frame_seed(job.frame.boot_id, job.frame.seq)


def _ranking(
    found: Ranking | None, count: int
) -> tuple[Sequence[tuple[tuple[int, float], ...]], Sequence[tuple[int, float] | None]]:
    """Return the best classes and the best group of each frame, as in `Scores`."""
    if found is None:
        return [()] * count, [None] * count
    best = [
        tuple(zip(*each, strict=True))
        for each in zip(found.class_ids.tolist(), found.confidences.tolist(), strict=True)
    ]
    if found.group_id is None or found.group_confidence is None:
        return best, [None] * count
    return best, list(zip(found.group_id.tolist(), found.group_confidence.tolist(), strict=True))


def picture_of(frame: Tensor) -> Picture:
    """Return one frame (C, H, W) in [0, 1] as (H, W, C) uint8.

    The frame is copied to the CPU before the conversion, which therefore needs no memory of the device.
    """
    array = frame.cpu().mul(255).round_().clamp_(0, 255).byte().numpy()
    # A transposed copy takes three times as long.
    return np.stack(tuple(array), axis=2)
