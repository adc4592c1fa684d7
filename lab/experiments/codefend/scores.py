"""Scores of the statistics on the backdoored models: the defender's pictures, clean test pictures and stamped ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.evidence.scores import Scores
from lab.experiments.codefend.rivals.beatrix import Seen, normality, seen
from lab.experiments.codefend.rivals.scale_up import scaled_doubts
from lab.experiments.codefend.subjects import Subject
from lab.provenance import made_by
from lab.strip.calibrate import overlay_choice
from lab.strip.combined import Fit, combined, fit
from lab.strip.measure import check
from processors.bundle import CombinedThreshold
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, LAYER_DISAGREEMENT, SCALED_NORMS, TYPICALITY
from processors.pipeline import Pipeline

STRIP: Final = "STRIP"
DROP: Final = "drop disagreement"
TYPICAL: Final = "typicality"
LAYERS: Final = "layer disagreement"
NORMS: Final = "scaled batch norms"
TOGETHER: Final = "all together"
BEATRIX: Final = "Beatrix"
SCALED: Final = "SCALE-UP"
OWN: Final = {
    ENTROPY: STRIP, DISAGREEMENT: DROP, TYPICALITY: TYPICAL, LAYER_DISAGREEMENT: LAYERS, SCALED_NORMS: NORMS,
}  # fmt: skip
"""The names of the statistics that run live."""
FRR: Final = 0.01
_VERDICT, _NORMS = "verdict", "norms"


@dataclass(frozen=True)
class Part:
    """The values of each statistic by its name, (n,) each, low for a trigger; verdicts and true labels, (n,).

    `TOGETHER` are the p-values.
    """

    values: Mapping[str, NDArray[np.float64]]
    verdict: NDArray[np.int64]
    label: NDArray[np.int64]

    @property
    def scores(self) -> Scores:
        """The scores that a camera's evidence is made of."""
        return Scores(self.values[STRIP], self.values[TOGETHER], self.verdict)


@dataclass(frozen=True)
class Measured:
    """The scores of one model. `known` are of the defender's clean pictures, from which thresholds come.

    `clean` and `stamped` are of test pictures. `combined` has the thresholds of all statistics together.
    """

    known: Part
    clean: Part
    stamped: Part
    combined: CombinedThreshold


class Numbers(NamedTuple):
    """The largest numbers of clean and of stamped test pictures."""

    clean: int = 2000
    stamped: int = 400


NUMBERS: Final = Numbers()


def scores(subject: Subject, numbers: Numbers, cache: Cache) -> Measured:
    """Return the scores of `numbers` of test pictures, from the cache or measured.

    STRIP stops early on clean frames, as it does live.
    """
    bundle = subject.bundle
    strip = bundle.settings.strip
    assert strip is not None
    pipeline, held_out = Pipeline(bundle), subject.task.held_out
    # The overlays are among the defender's pictures, and no statistic sees one under itself.
    overlays = overlay_choice(held_out.labels, bundle.settings.classes, strip.frr)
    pictures = {
        "known": held_out.take(np.setdiff1d(np.arange(len(held_out)), overlays)),
        "clean": _some(subject.task.test, numbers.clean, 0),
        "stamped": _some(subject.stamped, numbers.stamped, 1),
    }

    @lru_cache
    def learnt() -> tuple[Fit, Seen | None]:
        has_grams = isinstance(bundle.network, nn.Module) and any(
            isinstance(each, nn.Conv2d) for each in bundle.network.modules()
        )
        return fit(pipeline, held_out, overlays), seen(pipeline, pictures["known"]) if has_grams else None

    def measured(part: str) -> Arrays:
        some, (found, grams) = pictures[part], learnt()
        checked = check(pipeline, some, sequential=True)
        own = found.known if part == "known" else found.statistics.measured(some, known={ENTROPY: checked.bits})
        values: Arrays = {OWN[name]: each for name, each in own.items()}
        values[SCALED] = scaled_doubts(pipeline, some)
        if grams is not None:
            shown = grams if part == "known" else seen(pipeline, some)
            values[BEATRIX] = normality(shown, grams, same=part == "known")
        return values | {_VERDICT: checked.verdict, _NORMS: np.array(found.norms or 0)}

    state = digest(subject.state, made_by(__name__), numbers)
    arrays = {part: cache.get(f"scores/{subject.name}-{part}", state, partial(measured, part)) for part in pictures}
    norms = int(arrays["known"][_NORMS])
    table = combined(_own(arrays["known"]), FRR, norms or None)

    def part_of(part: str) -> Part:
        found = arrays[part]
        values = {name: found[name].astype(np.float64) for name in found if name not in (_VERDICT, _NORMS)}
        together = {TOGETHER: table.judge(_own(found)).values}
        return Part(values | together, found[_VERDICT].astype(np.int64), pictures[part].labels)

    return Measured(part_of("known"), part_of("clean"), part_of("stamped"), table)


def _own(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
    return {name: arrays[of].astype(np.float64) for name, of in OWN.items() if of in arrays}


def _some(pictures: LabelledPictures, most: int, seed: int) -> LabelledPictures:
    return pictures.take(np.sort(np.random.default_rng(seed).permutation(len(pictures))[:most]))
