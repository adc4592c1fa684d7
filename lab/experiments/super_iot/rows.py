"""Records of the experiment: one dataclass for each table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Accuracy of a judge behind one defence under one attack, over pictures that are correct on its bare network."""

    judge: str
    scope: str
    """`all`: every picture once; `sweep`: fewer pictures, several repeats; `eot`: attacked through the default."""
    attack: str
    label: str
    targeted: bool
    rounded: bool
    """True if frames are rounded to 8 bits before the drop."""
    defence: str
    r: float | None
    repeats: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    undefended: float
    restored: float | None
    """Share of the pictures broken by the attack that are classified correctly with the defence."""
    restored_low: float | None
    restored_high: float | None
    l_inf: float
    l2: float
    psnr: float | None
    """PSNR in dB of the judge's input against the clean picture."""


@dataclass(frozen=True)
class Comparison:
    """The default against paper mode, or against a baseline at the same clean accuracy, picture by picture."""

    judge: str
    kind: str
    """`paper` or `matched`."""
    attack: str
    label: str
    targeted: bool
    against: str
    r: float | None
    """The drop ratio of both, or the interpolated one at which the default has equal clean accuracy."""
    n: int
    clean: float
    """Clean accuracy of the compared defence."""
    ours: float
    theirs: float
    difference: float
    ci_low: float
    ci_high: float

    @property
    def verdict(self) -> str:
        """`below` or `above` if the 95 % interval of the difference excludes zero, else `level`."""
        return "below" if self.ci_high < 0 else "above" if self.ci_low > 0 else "level"


@dataclass(frozen=True)
class QualityRow:
    """PSNR of a reconstruction on clean pictures."""

    mode: str
    masks: str
    r: float
    n: int
    psnr: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class SizeRow:
    """Mean bytes per frame of one encoding, and the judge's accuracy on the decoded frames."""

    source: str
    encoding: str
    setting: float | None
    """Drop ratio or quality."""
    n: int
    bytes: float
    raw_bytes: float
    judge: str
    accuracy: float | None
    """Accuracy over all pictures, not only the correctly classified ones; None if only bytes are counted."""


@dataclass(frozen=True)
class JudgeRow:
    """A judge: its model, the number of examined pictures, and of those that the bare network classifies correctly."""

    name: str
    model_id: str
    data: str
    pictures: int
    correct: int
    command: str


@dataclass(frozen=True)
class PlotRow:
    """A plot of pictures that no other row contains."""

    name: str
