"""Certified labels: no patch of a given size, at any place and of any content, changes the label.

This is double masking (PatchCleanser: Xiang, Mahloujifar and Mittal, USENIX Security 2022, algorithms 1 and 2). The
paper fills its masks with grey. A masked window here is a block of dropped pixels, which the chain's own reconstruction
fills. The network stays as it is.

The functions ask for passes as pairs of windows and receive logits. They hold no picture and no network, so the lab,
which waits for each answer, and a processor, which queues the passes, share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from processors.stages.shapes import check_size
from schemas.errors import StageError

ACROSS: Final = 6
"""Most windows along one side. More windows are smaller, and cost the fourth power in passes."""

Logits = NDArray[np.floating]
Pairs = NDArray[np.intp]
Passes = Generator[Pairs, Logits, "Certificate"]
"""A certification: yields pairs of windows (n, 2), receives their logits (n, classes), and returns the certificate."""


class Certificate(NamedTuple):
    """The result of double masking on one picture.

    `label` is the class by double masking, and `certified` whether all pairs of windows give it. `passes` counts the
    passes of the network, `label_passes` those that the label alone needs. `first` (W,) holds the class behind each
    window, and `logits` (W, classes) the answer there.
    """

    label: int
    certified: bool
    passes: int
    label_passes: int
    first: NDArray[np.intp]
    logits: Logits

    @property
    def decisive(self) -> NDArray[np.bool_]:
        """Return the windows (W,) without whose pixels the picture gets another class."""
        return np.asarray(self.first != self.label)

    def dependence(self, label: int, temperature: float = 1.0) -> NDArray[np.floating]:
        """Return 1 less the probability of `label` behind each window, (W,), with the logits ÷ `temperature`."""
        raised = np.exp((self.logits - self.logits.max(1, keepdims=True)) / temperature)
        return np.asarray(1 - raised[:, label] / raised.sum(1))


def spans(side: int, patch: int, across: int = ACROSS) -> list[tuple[int, int]]:
    """Return the start and the end of each window along a side of `side` pixels, at most `across` windows.

    Each patch of `patch` pixels lies wholly in at least one window. Proof: a patch starts at a in [0, side − patch].
    The step s is ⌈(side − patch + 1) / across⌉, a window has s + patch − 1 pixels, and window i starts at
    min(i·s, side − s − patch + 1). Take i = ⌊a / s⌋. If the window starts at i·s, it starts at or before a. The patch
    ends at a + patch ≤ i·s + (s − 1) + patch, which is the window's end. Otherwise the window starts earlier than i·s
    and ends at `side`, where no patch ends later. ∎

    Raises StageError for a patch without pixels or larger than the side, or without a window.
    """
    if not 1 <= patch <= side:
        raise StageError(f"patch: expected 1 to {side} pixels along a side of {side}, got {patch}")
    if across < 1:
        raise StageError(f"across: expected at least 1 window, got {across}")
    step = math.ceil((side - patch + 1) / across)
    length = step + patch - 1
    starts = [min(start, side - length) for start in range(0, side - patch + 1, step)]
    return [(start, start + length) for start in starts]


def windows(height: int, width: int, patch: tuple[int, int], across: int = ACROSS) -> Tensor:
    """Return the windows (W, 1, height, width) bool, True inside, that cover each patch of (rows, columns) pixels.

    A patch lies in the window of its rows and columns: see `spans`, also for the errors.
    """
    check_size(height, width)
    rows, columns = spans(height, patch[0], across), spans(width, patch[1], across)
    found = torch.zeros(len(rows), len(columns), height, width, dtype=torch.bool)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            found[i, j, top:bottom, left:right] = True
    return found.flatten(0, 1)[:, None]


def kept_outside(inside: Tensor, pairs: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the masks (n, 1, H, W), True where a pixel is kept: outside both windows of each pair (n, 2).

    `inside` is the result of `windows`. `kept` (1 or n, 1, H, W) holds the pixels that the picture has; None is all.
    """
    outside = ~(inside[pairs[:, 0]] | inside[pairs[:, 1]])
    return outside if kept is None else outside & kept


def certification(count: int, at_once: int, *, label: bool = True) -> Passes:
    """Certify one picture with `count` windows. The generator yields pairs, at most `at_once`, and receives logits.

    The first round asks for each window alone. If all agree, the label is known. Otherwise a window of another class
    than most gets a second round, with each of the others: if all agree with it, its class is the label. Without such
    a window, the label is the class of most (ties: the lowest). `label` False leaves the second round out and returns
    the class of most.

    The label is certified if all pairs agree. Proof: let two pictures differ only inside a patch, and let all pairs of
    the first give y. The patch lies in a window w, so for the second picture each pair with w gives y as well. If all
    windows agree, they agree with w on y. Otherwise, a window of another class has a disagreeing second round, the
    one with w. So no other class is returned: either y is the class of most, or w itself is one of the others, and its
    second round agrees on y. ∎

    The pairs with the smallest margins come first. The first pair of another class ends the certification.
    """
    single = np.arange(count)
    answers = []
    for start in range(0, count, at_once):
        some = single[start : start + at_once]
        answers.append((yield np.stack((some, some), 1)))
    logits = np.concatenate(answers)
    first = logits.argmax(1)
    votes = np.bincount(first)
    most = int(votes.argmax())
    passes = count
    if votes[most] < count:
        found = most
        others = np.flatnonzero(first != most) if label else np.empty(0, np.intp)
        for window in others:
            agree = True
            rest = np.delete(single, window)
            for start in range(0, len(rest), at_once):
                some = rest[start : start + at_once]
                passes += len(some)
                agree = bool(((yield np.stack((np.full_like(some, window), some), 1)).argmax(1) == first[window]).all())
                if not agree:
                    break
            if agree:
                found = int(first[window])
                break
        return Certificate(found, False, passes, passes, first, logits)
    ranked = np.sort(logits, 1)
    margins = ranked[:, -1] - ranked[:, -2] if logits.shape[1] > 1 else np.zeros(count)
    rows, columns = np.triu_indices(count, 1)
    order = np.argsort(margins[rows] + margins[columns], kind="stable")
    pairs = np.stack((rows, columns), 1)[order]
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        passes += len(some)
        if not bool(((yield some).argmax(1) == most).all()):
            return Certificate(most, False, passes, count, first, logits)
    return Certificate(most, True, passes, count, first, logits)


def certify(judge: Callable[[Pairs], Logits], count: int, at_once: int, *, label: bool = True) -> Certificate:
    """Return the certificate of one picture: `judge` answers pairs (n, 2) with logits (n, classes).

    See `certification` for the other arguments.
    """
    passes = certification(count, at_once, label=label)
    asked = next(passes)
    while True:
        try:
            asked = passes.send(judge(asked))
        except StopIteration as ended:
            found: Certificate = ended.value
            return found
