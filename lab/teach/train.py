"""Training of a taught classifier: features, the choice of the head, calibration and the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.teach import head
from lab.teach.confidence import sharpness_of, unsure_limit
from lab.teach.features import TAPS, Features, Tap, add_features
from lab.teach.labelled import Labelled
from lab.teach.report import Held
from lab.teach.thorough import MOST_STEPS, cut_of, train_upper
from lab.teach.views import PLAIN, first_views, is_mirrored, seen, views_of
from processors.bundle import Bundle
from processors.networks.efficientnet_lite import EfficientNetLite0
from processors.networks.taught import LAST, Taught
from processors.pipeline import Pipeline
from schemas.errors import BundleError

_EQUAL: Final = 1.05
"""Ratio of losses whose difference few labels cannot prove: of such penalties, the largest is chosen."""
_FIRST: Final = PLAIN + 2
"""Views that choose depth, grid and contrast normalisation: two plain ones, a varied one and a mirrored one."""


@dataclass(frozen=True)
class TeachSettings:
    """The settings of a training."""

    drop_ratio: float = 0.25
    """The fleet's drop ratio, 0 to 0.875."""
    thorough: bool = False
    """Whether the upper blocks are trained too."""
    thorough_s: float = 240.0
    """Seconds that this may take."""
    seed: int = 0
    """Seed of all draws."""


@dataclass(frozen=True)
class Choice:
    """A head's place and penalty, as the cross-validation has chosen them."""

    tap: Tap
    contrast: bool
    mirrored: bool
    penalty: float

    def arguments(self, classes: int) -> dict[str, Any]:
        """Return the arguments of `Taught`."""
        depth, grid = self.tap
        return {"classes": classes, "depth": depth, "grid": grid, "contrast": self.contrast}

    @property
    def words(self) -> str:
        """The choice in one line."""
        depth, grid = self.tap
        more = (", contrast normalised" if self.contrast else "") + (", mirrored views" if self.mirrored else "")
        return f"depth {depth} of {LAST} on a grid of {grid}×{grid}, penalty {self.penalty:g}{more}"


class Progress(Protocol):
    """A receiver of progress reports."""

    def phase(self, name: str, steps: int) -> None:
        """Begin a phase of this many steps."""
        ...

    def advance(self, steps: int) -> None:
        """Count this many steps as done."""
        ...


@dataclass(frozen=True)
class TaughtNetwork:
    """A trained network, its factory arguments, its held-out verdicts and the training's time."""

    network: nn.Module
    choice: Choice
    held: Held
    thorough: bool
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return self.held.document() | {
            "head": self.choice.words,
            "thorough": self.thorough,
            "seconds": round(self.seconds, 1),
        }


def teach(general: Bundle, labelled: Labelled, settings: TeachSettings, progress: Progress) -> TaughtNetwork:
    """Train a classifier of the labelled pictures on the features of `general`. Raises BundleError for other networks.

    Test data play no part: every choice is made by cross-validation of the labels.
    """
    started = time.monotonic()
    teaching = _Teaching(general_network(general), Pipeline(general), labelled, settings, progress)
    choice, scores = teaching.choose()
    sharpness = sharpness_of(scores, teaching.plain_right).factor
    taught = teaching.network(choice, sharpness, torch.ones_like(teaching.labels, dtype=torch.bool))
    held_scores = scores * sharpness
    thorough = False
    if settings.thorough:
        maps = teaching.maps(taught, choice)
        progress.phase("upper blocks", 2 * MOST_STEPS)
        found = train_upper(
            taught,
            teaching.network(choice, sharpness, teaching.folds != teaching.folds.max()),
            maps,
            teaching.labels,
            teaching.folds,
            held_scores,
            settings.thorough_s,
            settings.seed,
            progress.advance,
        )
        taught, held_scores, thorough = found.network, found.scores, found.better
    held = teaching.held(held_scores, thorough=thorough)
    return TaughtNetwork(taught.eval().requires_grad_(False), choice, held, thorough, time.monotonic() - started)


def general_network(general: Bundle) -> EfficientNetLite0:
    """Return the network of the general bundle. Raises BundleError for another one."""
    network = general.network
    if not isinstance(network, EfficientNetLite0):
        raise BundleError(
            f"{general.model_id}: expected the general network EfficientNetLite0, got {type(network).__name__}. Give "
            "the bundle that `pointillist bundle create --imagenet` makes."
        )
    return network


class _Teaching:
    """The labelled pictures with their features."""

    def __init__(
        self,
        network: EfficientNetLite0,
        pipeline: Pipeline,
        labelled: Labelled,
        settings: TeachSettings,
        progress: Progress,
    ) -> None:
        self._network, self._pipeline, self._labelled = network, pipeline, labelled
        self._settings, self._progress = settings, progress
        self.labels = torch.from_numpy(labelled.labels)
        self.plain_right = F.one_hot(self.labels, len(labelled.classes)).bool().repeat(PLAIN, 1)
        self.folds = head.folds_of(labelled.labels)
        self._views = views_of(len(labelled))
        self._features = Features()

    def choose(self) -> tuple[Choice, Tensor]:
        """Return the best head, and its held-out scores (plain views · pictures, classes)."""
        first, more = range(_FIRST), range(_FIRST, self._views)
        self._progress.phase("features", len(self._labelled) * (2 * len(first) + len(more)))
        self._add(first, (False, True))
        trials = [self._best(tap, contrast, first, (True,)) for tap in TAPS for contrast in (False, True)]
        _, choice, _ = min(trials, key=lambda each: each[0])
        self._features.keep(choice.contrast, choice.tap)
        self._add(more, (choice.contrast,))
        _, choice, scores = self._best(choice.tap, choice.contrast, range(self._views), (False, True))
        return choice, scores

    def _add(self, views: Sequence[int], contrasts: Sequence[bool]) -> None:
        settings, count = self._settings, len(contrasts)
        add_features(
            self._features, self._network, self._pipeline, self._labelled, views, contrasts, settings.drop_ratio,
            settings.seed, lambda done: self._progress.advance(done * count),
        )  # fmt: skip

    def _best(
        self, tap: Tap, contrast: bool, views: Sequence[int], mirrors: Sequence[bool]
    ) -> tuple[float, Choice, Tensor]:
        """Return the loss, the choice and the held-out scores of the best penalty and use of mirrored views."""
        classes = len(self._labelled.classes)
        found = []
        for mirrored in mirrors:
            used = [view for view in views if mirrored or not is_mirrored(view)]
            rows = self._features.rows(contrast, tap, used)
            rows = head.standard_of(rows)(rows)
            products = rows @ rows.T
            labels, folds = self.labels.repeat(len(used)), self.folds.repeat(len(used))
            tested = torch.arange(len(used)).repeat_interleave(len(self.labels)) < PLAIN
            for penalty in head.PENALTIES:
                scores = head.held_out_scores(products, labels, folds, tested, classes, penalty)[tested]
                loss = sharpness_of(scores, self.plain_right).loss
                found.append((loss, Choice(tap, contrast, mirrored, penalty), scores))
        least = min(loss for loss, _, _ in found)
        return max((each for each in found if each[0] <= least * _EQUAL), key=lambda each: each[1].penalty)

    @torch.no_grad()
    def network(self, choice: Choice, sharpness: float, fit: Tensor) -> Taught:
        """Return the network with a head that the labels in `fit` (pictures,) bool have trained."""
        classes = len(self._labelled.classes)
        taught = Taught(**choice.arguments(classes))
        own = taught.state_dict()
        general = self._network.state_dict()
        taught.load_state_dict({name: own[name] if name.startswith("classifier.") else general[name] for name in own})
        used = [view for view in range(self._views) if choice.mirrored or not is_mirrored(view)]
        rows = self._features.rows(choice.contrast, choice.tap, used)[fit.repeat(len(used))]
        standard = head.standard_of(rows)
        rows = standard(rows)
        dual = head.solve(rows @ rows.T, self.labels[fit].repeat(len(used)), classes, choice.penalty)
        weight = (rows.double().T @ dual).T * standard.scale.double() * sharpness
        taught.classifier.weight.copy_(weight)
        taught.classifier.bias.copy_(-(weight @ standard.mean.double()))
        return taught.eval()

    @torch.inference_mode()
    def maps(self, taught: Taught, choice: Choice) -> Tensor:
        """Return the maps (views, pictures, channels, h, w) below the trained blocks, half precision.

        Without mirrored views, there are as many others.
        """
        cut, found = cut_of(taught), []
        self._progress.phase("maps", len(self._labelled) * self._views)
        for view in first_views(self._views, mirrored=choice.mirrored):
            places, parts = [], []
            for some, inputs in seen(
                self._pipeline, self._labelled, view, self._settings.drop_ratio, self._settings.seed
            ):
                places.append(some)
                normalised = self._pipeline.bundle.normalised(inputs).contiguous(memory_format=torch.channels_last)
                parts.append(taught.lower(normalised, cut).half())
                self._progress.advance(len(some))
            found.append(torch.cat(parts)[torch.cat(places).argsort()])
        return torch.stack(found)

    def held(self, scores: Tensor, *, thorough: bool) -> Held:
        """Return the report's verdicts for calibrated scores (plain views · pictures, classes).

        Those of a thorough training are of the last fold alone.
        """
        labelled = self._labelled
        places = torch.nonzero(self.folds == self.folds.max())[:, 0] if thorough else torch.arange(len(labelled))
        probabilities = scores.softmax(1)
        return Held(
            labelled.classes,
            [labelled.files[place] for place in places],
            self.labels[places].numpy(),
            probabilities.view(PLAIN, len(places), -1).mean(0).numpy(),
            unsure_limit(probabilities, self.labels[places].repeat(PLAIN)),
        )
