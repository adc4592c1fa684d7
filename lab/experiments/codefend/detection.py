"""STRIP on the backdoored models: Table 3 of the paper, and figures that it leaves out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np

from lab.backdoor.train import CPU
from lab.cache import Arrays, Cache, Step, digest
from lab.experiments.codefend.rows import DetectionRow
from lab.experiments.codefend.subjects import Subject
from lab.provenance import made_by
from lab.statistics import Interval, wilson
from lab.strip.measure import check, target_class
from lab.strip.table import calibrate_bundle
from processors.bundle import load_bundle
from processors.pipeline import Pipeline
from schemas.limits import dropped_per_block

FRR = 0.01


@dataclass(frozen=True)
class Detection:
    """STRIP on frames with one drop ratio: at most `most` clean test pictures, and at most as many stamped ones."""

    ratio: float
    sequential: bool
    most: int

    @property
    def frames(self) -> str:
        """The frames as the row names them: `whole`, or the drop ratio."""
        return "whole" if not self.ratio else f"r = {self.ratio:g}"

    def step(self, subject: Subject) -> Step:
        """Return the cache key of the result."""
        name = f"detection/{subject.name}-{self.ratio:g}-{'sequential' if self.sequential else 'all'}"
        return Step(name, digest(subject.state, made_by(__name__), self.ratio, self.sequential, self.most))


def measure(subject: Subject, detection: Detection, cache: Cache) -> tuple[DetectionRow, Arrays]:
    """Return STRIP's row, and the entropies of clean and stamped pictures.

    Thresholds that the bundle lacks are calibrated on the defender's pictures, in a copy.
    """
    ratio, sequential, most = detection.ratio, detection.sequential, detection.most

    def run() -> Arrays:
        folder = cache.folder / "bundles" / f"{subject.name}-{ratio:g}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(subject.folder, folder)
        dropped = dropped_per_block(ratio)
        settings = subject.bundle.settings.strip
        if dropped or settings is None or (sequential and not settings.rounds):
            calibrate_bundle(
                folder, subject.task.held_out, frr=FRR, dropped_per_block=dropped, device=CPU, vouched=True
            )
        bundle = load_bundle(folder, CPU, vouched=True)
        pipeline = Pipeline(bundle)
        chosen = np.random.default_rng(0).permutation(len(subject.task.test))[:most]
        clean = check(pipeline, subject.task.test.take(np.sort(chosen)), dropped, sequential=sequential)
        chosen = np.random.default_rng(1).permutation(len(subject.stamped))[:most]
        poisoned = check(pipeline, subject.stamped.take(np.sort(chosen)), dropped, sequential=sequential)
        strip = bundle.settings.strip
        assert strip is not None
        threshold = strip.threshold(dropped)
        assert threshold is not None
        return {
            "clean_flagged": clean.flagged, "clean_bits": clean.bits, "clean_passes": clean.passes,
            "flagged": poisoned.flagged, "bits": poisoned.bits,
            "reached": poisoned.verdict == subject.poisoning.aims(poisoned.label),
            "target": np.array(target_class(poisoned)), "threshold": np.array(threshold.threshold_bits),
            "seconds": np.array(clean.seconds + poisoned.seconds),
        }  # fmt: skip

    step = detection.step(subject)
    found = cache.get(step.name, step.made_from, run)
    frr, far = _share(found["clean_flagged"]), _share(~found["flagged"].astype(bool))
    reached = found["reached"].astype(bool)
    row = DetectionRow(
        model=subject.name,
        frames=detection.frames,
        sequential=sequential,
        clean=len(found["clean_flagged"]),
        poisoned=len(reached),
        attack_success=float(reached.mean()),
        frr=frr.value, frr_low=frr.low, frr_high=frr.high,
        far=far.value, far_low=far.low, far_high=far.high,
        far_effective=float((~found["flagged"][reached].astype(bool)).mean()) if reached.any() else 0.0,
        threshold_bits=float(found["threshold"]),
        mean_passes=float(found["clean_passes"].mean()),
        seconds=float(found["seconds"]),
    )  # fmt: skip
    return row, found


def _share(flags: np.ndarray) -> Interval:
    return wilson(int(flags.sum()), len(flags))
