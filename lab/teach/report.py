"""The report of a training: held-out verdicts in figures and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.statistics import Interval, wilson

WORST: Final = 12
"""Pictures in the list of the worst."""
_ENOUGH: Final = 20
"""Labels of a class below which its own figures prove little."""
_GOOD: Final = 0.9
"""Share of right verdicts below which a class needs more labels."""


@dataclass(frozen=True)
class Held:
    """Held-out verdicts on n pictures, each from a network that was trained without the picture.

    `probabilities` (n, classes) are calibrated. The same labels chose the head, the temperature and the limit, so the
    shares are somewhat too good.
    """

    classes: Sequence[str]
    files: Sequence[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    unsure_below: float

    @property
    def verdicts(self) -> NDArray[np.int64]:
        """The most likely class of each picture, (n,)."""
        verdicts: NDArray[np.int64] = self.probabilities.argmax(1)
        return verdicts

    @property
    def right(self) -> Interval:
        """Share of right verdicts, unsure ones included."""
        return wilson(int((self.verdicts == self.labels).sum()), len(self.labels))

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Whether the confidence reaches the limit, (n,)."""
        sure: NDArray[np.bool_] = self.probabilities.max(1) >= self.unsure_below
        return sure

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Number of pictures by label (row) and verdict (column); the last column counts unsure verdicts."""
        found = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)
        np.add.at(found, (self.labels, np.where(self.sure, self.verdicts, len(self.classes))), 1)
        return found

    def worst(self) -> list[tuple[str, str, str, float]]:
        """Return file, label, verdict and the label's probability of the least likely labels first."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return [
            (self.files[place], self.classes[self.labels[place]], self.classes[self.verdicts[place]], float(own[place]))
            for place in np.argsort(own, kind="stable")[:WORST]
            if self.verdicts[place] != self.labels[place]
        ]

    def advice(self) -> list[str]:
        """Return a sentence for each class that needs more labels."""
        found = []
        for number, name in enumerate(self.classes):
            own = self.labels == number
            count, right = int(own.sum()), int((self.verdicts == self.labels)[own].sum())
            if right < _GOOD * count:
                wrong = np.bincount(self.verdicts[own & (self.verdicts != self.labels)], minlength=len(self.classes))
                other = self.classes[int(wrong.argmax())]
                found.append(
                    f"more labels of {name} are needed: {right} of {count} held-out pictures are right, and most of "
                    f"the others read {other}"
                )
            elif count < _ENOUGH:
                low = wilson(right, count).low
                found.append(
                    f"more labels of {name} would make the figures firmer: {right} of {count} held-out pictures are "
                    f"right, which proves {low:.0%}"
                )
        return found

    def document(self) -> dict[str, Any]:
        """Return the report as plain values."""
        sure = self.sure
        right = (self.verdicts == self.labels)[sure]
        return {
            "classes": list(self.classes),
            "labels": [int(each) for each in np.bincount(self.labels, minlength=len(self.classes))],
            "right": self.right._asdict(),
            "unsure_below": self.unsure_below,
            "unsure": float(1 - sure.mean()),
            "right_when_sure": wilson(int(right.sum()), len(right))._asdict() if len(right) else None,
            "confusion": self.confusion.tolist(),
            "worst": [
                {"file": file, "label": label, "verdict": verdict, "probability": round(own, 4)}
                for file, label, verdict, own in self.worst()
            ],
            "advice": self.advice(),
        }
