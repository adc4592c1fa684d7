"""Evidence of labelled pictures against a network's description: its normalisation, the order of its classes.

A doubt is a difference outside of 95 % intervals and larger than `GAP`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from infra.bundling.certainty import logits_of
from infra.bundling.gallery import round_robin
from infra.bundling.presets import PRESETS, Normalisation
from lab.data import LabelledPictures
from lab.statistics import Interval, share_interval
from processors.bundle import Bundle

GAP: Final = 0.05
COMPARED: Final = 120
"""The most pictures for the other normalisations, taken from all classes in turn: networks may be slow."""
_LEAST: Final = 2
"""The fewest pictures of a class that show its place among the outputs."""
_LEAST_JUDGED: Final = 40
"""The fewest pictures that show chance in a network that is right on about half of them."""
_MARGIN: Final = 0.1
"""The least gain in mean recall over a constant verdict."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelResult:
    """The network's accuracy as described, and the evidence against the description, one line each."""

    accuracy: Interval
    doubts: tuple[str, ...]


def verdicts(bundle: Bundle, pictures: LabelledPictures, given: Normalisation | None = None) -> Labels:
    """Return the classes (N,) of pictures as the network takes them, under its own normalisation or the `given` one."""
    if given is not None:
        mean, std = (torch.tensor(values, device=bundle.device)[:, None, None] for values in given)
        bundle = replace(bundle, mean=mean, std=std)
    return logits_of(bundle, pictures).argmax(1).numpy()


def judge(bundle: Bundle, pictures: LabelledPictures) -> LabelResult:
    """Classify labelled pictures as described, under every other preset, and by every other order of the classes."""
    channels, classes = bundle.settings.input.channels, bundle.settings.classes
    found = verdicts(bundle, pictures)
    accuracy = share(found, pictures.labels)
    doubts = []
    chosen = round_robin(pictures.labels, COMPARED)
    some, here = pictures.take(chosen), share(found[chosen], pictures.labels[chosen])
    others = {name: verdicts(bundle, some, preset.of(channels)) for name, preset in PRESETS.items()}
    best = max(others, key=lambda name: regrouped(others[name], some.labels).value)
    if exceeds_chance(regrouped(others[best], some.labels), regrouped(found[chosen], some.labels)):
        there = share(others[best], some.labels)
        doubts.append(
            f"the normalisation looks wrong: {here.value:.0%} of {len(some)} pictures are right as described, and "
            f"{there.value:.0%} with that of the preset {best}: --preset {best}?"
        )
        doubts += order_doubt(others[best], some.labels, classes, there)
    else:
        doubts += order_doubt(found, pictures.labels, classes, accuracy)
    return LabelResult(accuracy, tuple(doubts or chance_doubt(found, pictures.labels, classes, accuracy)))


def order_doubt(found: Labels, labels: Labels, classes: Sequence[str], accuracy: Interval) -> list[str]:
    """Return whether another order of the names would explain the verdicts."""
    right = regrouped(found, labels)
    alphabetical = np.array(sorted(range(len(classes)), key=lambda number: classes[number]))
    sorted_right = share(alphabetical[found], labels)
    if exceeds_chance(sorted_right, accuracy) and sorted_right.value > right.value - GAP:
        return [
            f"the order of the classes looks wrong: {accuracy.value:.0%} of {len(found)} pictures are right as named, "
            f"and {sorted_right.value:.0%} with the names in alphabetical order, as what reads folders numbers them"
        ]
    if not exceeds_chance(right, accuracy):
        return []
    named = place_of_each(found, labels)
    wrong = [(label, output) for label, output in sorted(named.items()) if label != output][:3]
    shown = ", ".join(f"{classes[label]} comes out as {classes[output]}" for label, output in wrong)
    return [
        f"the order of the classes looks wrong: {accuracy.value:.0%} of {len(found)} pictures are right as named, and "
        f"{right.value:.0%} if {shown}{', …' if len(wrong) == 3 else ''} is a matter of names"
    ]


def chance_doubt(found: Labels, labels: Labels, classes: Sequence[str], accuracy: Interval) -> list[str]:
    """Return whether chance, or the most frequent class for every picture, would explain as many right verdicts.

    From `_LEAST_JUDGED` pictures on, there is also a doubt if the accuracy's interval reaches down to the share of the
    most frequent class, and the mean recall of the classes exceeds that of a constant verdict by less than `_MARGIN`.
    Recall keeps a right network out of doubt if nearly all pictures are of one class.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    constant = float(counts.max()) / len(labels)
    by_class = float(np.mean([(found[labels == label] == label).mean() for label in present]))
    few_right = accuracy.low <= 1 / len(classes) and accuracy.high < 0.5
    uninformed = (
        len(found) >= _LEAST_JUDGED
        and len(present) > 1
        and accuracy.low <= max(1 / len(classes), constant)
        and by_class < 1 / len(present) + _MARGIN
    )
    if not few_right and not uninformed:
        return []
    return [
        f"{accuracy.value:.0%} of {len(found)} pictures are right, no more than by chance or by one class for all: are "
        "these the pictures and the classes that the network was trained on?"
    ]


def place_of_each(found: Labels, labels: Labels) -> dict[int, int]:
    """Return the most frequent output of each class, for classes that share it with no other."""
    places: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        own = found[labels == label]
        if len(own) >= _LEAST:
            places[label] = int(np.bincount(own).argmax())
    outputs = list(places.values())
    return {label: output for label, output in places.items() if outputs.count(output) == 1}


def regrouped(found: Labels, labels: Labels) -> Interval:
    """Return the accuracy if each class is moved to the output of most of its pictures.

    One half of the pictures gives the order and the other half judges it, in turn: chance matches do not count. A class
    without a clear output in one half keeps its own place.
    """
    right = np.zeros(len(found), np.bool_)
    halves = np.zeros(len(found), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        halves[own] = np.arange(len(own)) % 2
    for half in (0, 1):
        places = place_of_each(found[halves != half], labels[halves != half])
        here = halves == half
        expected = np.array([places.get(int(label), int(label)) for label in labels[here]])
        right[here] = found[here] == expected
    return share_interval(right[None])


def share(found: Labels, labels: Labels) -> Interval:
    """Return the share of pictures with the class of their label."""
    return share_interval((found == labels)[None])


def exceeds_chance(other: Interval, own: Interval) -> bool:
    """Return whether `other` exceeds what chance and `GAP` explain."""
    return other.low > own.high and other.value > own.value + GAP
