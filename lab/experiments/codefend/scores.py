"""Scores of the statistics on the backdoored models: the defender's pictures, clean test pictures and stamped ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lab.cache import Arrays, Cache, digest
from lab.data import LabelledPictures
from lab.evidence.scores import Scores
from lab.experiments.codefend.rivals.beatrix import normality, seen
from lab.experiments.codefend.rivals.scale_up import scaled_doubts
from lab.experiments.codefend.subjects import Subject
from lab.provenance import made_by
from lab.strip.calibrate import overlay_choice
from lab.strip.disagreement import agreements
from lab.strip.measure import check
from lab.strip.scaled_norms import depth, doubts
from lab.strip.typicality import fitted, typicalities
from processors.pipeline import Pipeline
from schemas.evidence.alarms import TYPICALITY

STRIP: Final = "STRIP"
DROP: Final = "drop disagreement"
NORMS: Final = "scaled batch norms"
BEATRIX: Final = "Beatrix"
SCALED: Final = "SCALE-UP"


@dataclass(frozen=True)
class Part:
    """The values of each statistic by its name, (n,) each, low for a trigger; verdicts and true labels, (n,)."""

    values: Mapping[str, NDArray[np.float64]]
    verdict: NDArray[np.int64]
    label: NDArray[np.int64]

    @property
    def scores(self) -> Scores:
        """The scores that a camera's evidence is made of."""
        return Scores(self.values[STRIP], self.values[DROP], self.values[TYPICALITY], self.verdict)


@dataclass(frozen=True)
class Measured:
    """The scores of one model. `known` are of the defender's clean pictures, from which thresholds come.

    `clean` and `stamped` are of test pictures. `depth` is the number of scaled batch norms; None without any.
    """

    known: Part
    clean: Part
    stamped: Part
    depth: int | None


class Numbers(NamedTuple):
    """The largest numbers of clean and of stamped test pictures."""

    clean: int = 1000
    stamped: int = 400


NUMBERS: Final = Numbers()


def scores(subject: Subject, numbers: Numbers, cache: Cache) -> Measured:
    """Return the scores of `numbers` of test pictures, each statistic from the cache or measured.

    STRIP stops early on clean frames, as it does live.
    """
    bundle = subject.bundle
    strip = bundle.settings.strip
    assert strip is not None
    pipeline, held_out = Pipeline(bundle), subject.task.held_out
    state = digest(subject.state, made_by(__name__), numbers)
    # The overlays are among the defender's pictures, and no statistic sees one under itself.
    overlays = overlay_choice(held_out.labels, bundle.settings.classes, strip.frr)
    pictures = {
        "known": held_out.take(np.setdiff1d(np.arange(len(held_out)), overlays)),
        "clean": _some(subject.task.test, numbers.clean, 0),
        "stamped": _some(subject.stamped, numbers.stamped, 1),
    }

    def kept(part: str, what: str, make: Callable[[], Arrays]) -> Arrays:
        return cache.get(f"scores/{subject.name}-{part}-{what}", state, make)

    usual = fitted(pipeline, held_out)
    by_grams = isinstance(bundle.network, nn.Module) and any(
        isinstance(each, nn.Conv2d) for each in bundle.network.modules()
    )
    clean_grams = seen(pipeline, pictures["known"]) if by_grams else None
    count = int(kept("known", "depth", lambda: {"depth": np.array(depth(bundle, held_out) or 0)})["depth"])

    def measured(part: str) -> Part:
        some = pictures[part]

        def by_strip() -> Arrays:
            found = check(pipeline, some, sequential=True)
            return {"values": found.bits, "verdict": found.verdict}

        first = kept(part, "strip", by_strip)
        values = {STRIP: first["values"].astype(np.float64)}
        values[DROP] = kept(part, "drop", lambda: {"values": agreements(pipeline, some)})["values"].astype(np.float64)
        if part == "known":
            values[TYPICALITY] = np.delete(usual.typicality, overlays)
        else:
            values[TYPICALITY] = typicalities(pipeline, usual.features, some)
        values[SCALED] = scaled_doubts(pipeline, some)
        if clean_grams is not None:
            own = clean_grams if part == "known" else seen(pipeline, some)
            values[BEATRIX] = normality(own, clean_grams, same=part == "known")
        if count:
            found = kept(part, "norms", lambda: {"values": doubts(pipeline, some, count)})["values"]
            values[NORMS] = found.astype(np.float64)
        return Part(values, first["verdict"].astype(np.int64), some.labels)

    return Measured(measured("known"), measured("clean"), measured("stamped"), count or None)


def _some(pictures: LabelledPictures, most: int, seed: int) -> LabelledPictures:
    return pictures.take(np.sort(np.random.default_rng(seed).permutation(len(pictures))[:most]))
