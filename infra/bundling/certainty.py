"""The confidence below which a network reads `unsure`, calibrated instead of typed.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2) divides the logits
by one number. With labels it minimises the negative log-likelihood. The limit is then the lowest confidence from which
`RIGHT` of the named verdicts are right.

Without labels, a verdict counts as right if other views of the picture have the same: mirrored, cut to its middle, and
rebuilt after half of its pixels are dropped. The temperature makes the mean confidence equal to the mean agreement. A
network that is wrong in the same way on all views agrees with itself: agreement is an upper bound of accuracy, and
labels are better.

The verdicts are those behind a drop of `DROP_RATIO`, through the chain that runs live: small networks are less often
right on rebuilt pictures than on whole ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from infra.bundling.gallery import UNKNOWN
from lab.data import LabelledPictures
from lab.masks import random_masks
from lab.teach.confidence import sharpness_of
from processors.bundle import Bundle
from processors.pipeline import Pipeline
from processors.stages.drop import drop
from processors.stages.plate import reconstruct_plate
from processors.stages.resample import centre_crop, resize

RIGHT: Final = 0.9
"""Share of the named verdicts that has to be right."""
DROP_RATIO: Final = 0.25
"""Share of dropped pixels of the judged pictures, the usual one of cameras."""
LEAST_PICTURES: Final = 40
"""The fewest pictures that calibrate."""
_LEAST_NAMED: Final = 10
"""The fewest named verdicts on which a limit may rest."""
_TEMPERATURES: Final[list[float]] = np.geomspace(0.25, 8, 61).round(2).tolist()
_LIMITS: Final = np.linspace(0.05, 0.95, 91)
_MIDDLE: Final = 0.8
_DROPPED: Final = 0.5


class Certainty(NamedTuple):
    """Calibrated values of `model.toml`, and the result on the pictures that calibrated them."""

    temperature: float
    unsure_below: float
    named: float
    """Share of the verdicts that are not `unsure`."""
    right: float
    """Share of the named verdicts that are right, or that agree; 0 if none is named."""


def calibrate_certainty(bundle: Bundle, pictures: LabelledPictures) -> Certainty:
    """Return the certainty of `bundle` by pictures of its input size, with their labels if all have one."""
    logits = logits_behind_drop(bundle, pictures)
    if (pictures.labels != UNKNOWN).all():
        right = F.one_hot(torch.from_numpy(pictures.labels), len(bundle.settings.classes)).bool()
        return by_labels(logits, right, bundle.groups)
    views = [logits_of(bundle, pictures, view) for view in _VIEWS]
    return by_agreement(logits, views, bundle.groups)


@torch.inference_mode()
def logits_behind_drop(bundle: Bundle, pictures: LabelledPictures) -> Tensor:
    """Return the logits (N, classes) of pictures behind a drop of `DROP_RATIO`, through the chain that runs live.

    The random draws are the same in each call.
    """
    pipeline, draws = Pipeline(bundle), torch.Generator().manual_seed(0)
    found = []
    for frames, _ in pictures.batches(bundle.device):
        kept = random_masks(len(frames), frames.shape[2], frames.shape[3], DROP_RATIO, draws).to(frames.device)
        found.append(pipeline.logits(drop(frames, kept), kept, bundle.seeds(len(frames), draws)).float().cpu())
    return torch.cat(found)


@torch.inference_mode()
def logits_of(
    bundle: Bundle, pictures: LabelledPictures, view: Callable[[Tensor], Tensor] = lambda frames: frames
) -> Tensor:
    """Return the logits (N, classes) of one view of pictures, or of the whole pictures themselves.

    The random draws are the same in each call.
    """
    draws = torch.Generator().manual_seed(0)
    found = []
    for frames, _ in pictures.batches(bundle.device):
        found.append(bundle.logits(view(frames), bundle.seeds(len(frames), draws)).float().cpu())
    return torch.cat(found)


def by_labels(logits: Tensor, right: Tensor, groups: Tensor | None) -> Certainty:
    """Calibrate by logits (N, classes); `right` (N, classes) is True at the classes that are right for a picture.

    `groups` is (classes, groups), 1 where a class belongs to a group. A group is right if one of its classes is.
    """
    fitted = 1 / sharpness_of(logits, right, smoothed=False).factor
    temperature = round(min(max(fitted, _TEMPERATURES[0]), _TEMPERATURES[-1]), 2)
    in_group = None if groups is None else (right.float() @ groups.cpu()) > 0
    return _limited(logits / temperature, temperature, groups, right.float(), in_group)


def by_agreement(logits: Tensor, views: Sequence[Tensor], groups: Tensor | None) -> Certainty:
    """Calibrate by the logits (N, classes) of pictures and of their `views`."""
    classes = logits.shape[1]
    same = torch.stack([F.one_hot(each.argmax(1), classes) for each in views]).float().mean(0)
    agreement = float(same.gather(1, logits.argmax(1, keepdim=True)).mean())

    def distance(temperature: float) -> float:
        return abs(float((logits / temperature).softmax(1).amax(1).mean()) - agreement)

    temperature = min(_TEMPERATURES, key=distance)
    in_group = None
    if groups is not None:
        own = groups.cpu()
        best = [((each / temperature).softmax(1) @ own).argmax(1) for each in views]
        in_group = torch.stack([F.one_hot(each, own.shape[1]) for each in best]).float().mean(0)
    return _limited(logits / temperature, temperature, groups, same, in_group)


def _limited(
    scaled: Tensor, temperature: float, groups: Tensor | None, right: Tensor, in_group: Tensor | None
) -> Certainty:
    """Return the lowest limit from which `RIGHT` of the named verdicts are right, by shares (N, classes or groups)."""
    shares = scaled.softmax(1)
    confidence, best = shares.max(1)
    correct = right.float().gather(1, best[:, None])[:, 0]
    of_group, group_correct = torch.zeros_like(confidence), torch.zeros_like(confidence)
    if groups is not None and in_group is not None:
        of_group, group = (shares @ groups.cpu()).max(1)
        group_correct = in_group.float().gather(1, group[:, None])[:, 0]
    found = Certainty(temperature, 1.0, 0.0, 0.0)
    for limit in _LIMITS[::-1].tolist():
        by_class, by_group = confidence >= limit, of_group >= limit
        named = by_class | by_group
        if int(named.sum()) < _LEAST_NAMED:
            continue
        share = float(torch.where(by_class, correct, group_correct)[named].mean())
        if share >= RIGHT:
            found = Certainty(temperature, round(limit, 2), float(named.float().mean()), share)
    return found


def _mirrored(frames: Tensor) -> Tensor:
    return frames.flip(3)


def _middle(frames: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    return resize(centre_crop(frames, round(_MIDDLE * height), round(_MIDDLE * width)), height, width)


def _dropped(frames: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    kept = random_masks(len(frames), height, width, _DROPPED, torch.Generator().manual_seed(0)).to(frames.device)
    return reconstruct_plate(frames * kept, kept)


_VIEWS: Final = (_mirrored, _middle, _dropped)
