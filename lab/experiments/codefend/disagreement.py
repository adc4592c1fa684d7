"""Drop disagreement next to STRIP on the backdoored models, with thresholds from the same clean pictures."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.data import LabelledPictures
from lab.experiments.codefend.rows import DisagreementRow
from lab.experiments.codefend.subjects import Subject
from lab.strip.calibrate import clean_verdicts, threshold_of
from lab.strip.disagreement import agreements, fused
from lab.strip.measure import check
from processors.pipeline import Pipeline
from processors.stages.disagreement import DROPPED, DROPS
from schemas.limits import BLOCK_PIXELS

FRR: Final = 0.01


def disagreement(subject: Subject, most: int) -> DisagreementRow:
    """Return the row over at most `most` clean test pictures, and as many stamped ones that reach the target."""
    bundle = subject.bundle
    strip = bundle.settings.strip
    assert strip is not None
    assert bundle.overlays is not None
    pipeline, held_out = Pipeline(bundle), subject.task.held_out
    known_bits = clean_verdicts(pipeline, bundle.overlays, held_out, strip.clamped, 0).values
    known = agreements(pipeline, held_out)
    clean, stamped = _some(subject.task.test, most, 0), _some(subject.stamped, most, 1)
    clean_bits, clean_agree = check(pipeline, clean).bits, agreements(pipeline, clean)
    seen = check(pipeline, stamped)
    reached = seen.verdict == subject.poisoning.aims(seen.label)
    bits, agree = seen.bits[reached], agreements(pipeline, stamped)[reached]
    both = fused(known_bits, known, FRR)
    strip_bits, agreement = threshold_of(known_bits, FRR), threshold_of(known, FRR)
    return DisagreementRow(
        model=subject.name,
        ratio=DROPPED / BLOCK_PIXELS,
        drops=DROPS,
        clean=len(clean),
        poisoned=int(reached.sum()),
        auc_strip=area(bits, clean_bits),
        auc_drop=area(agree, clean_agree),
        frr_strip=float((clean_bits < strip_bits).mean()),
        detected_strip=_share(bits < strip_bits),
        frr_drop=float((clean_agree < agreement).mean()),
        detected_drop=_share(agree < agreement),
        frr_fused=float(both.flags(clean_bits, clean_agree).mean()),
        detected_fused=_share(both.flags(bits, agree)),
    )


def area(attacked: NDArray[np.float64], clean: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often an attacked frame lies below a clean one, ties counted half."""
    ordered = np.sort(clean)
    above = len(clean) - np.searchsorted(ordered, attacked, "right")
    equal = np.searchsorted(ordered, attacked, "right") - np.searchsorted(ordered, attacked, "left")
    return float((above + equal / 2).mean() / len(clean)) if len(attacked) else 0.0


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _some(pictures: LabelledPictures, most: int, seed: int) -> LabelledPictures:
    return pictures.take(np.sort(np.random.default_rng(seed).permutation(len(pictures))[:most]))
