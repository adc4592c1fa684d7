"""Records of the experiment, one dataclass a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Accuracy of a judge behind one defence under one attack, of the pictures that it classifies correctly bare."""

    judge: str
    scope: str
    """`all`: every picture once; `sweep`: fewer pictures, several repeats; `eot`: attacked through the default."""
    attack: str
    label: str
    targeted: bool
    rounded: bool
    """To 8 bits before the drop."""
    defence: str
    r: float | None
    repeats: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    undefended: float
    restored: float | None
    """Share of the pictures that the attack broke which the defence classifies correctly."""
    restored_low: float | None
    restored_high: float | None
    l_inf: float
    l2: float
    psnr: float | None
    """dB of what the judge is shown against the clean picture."""


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
    """The drop ratio of both, or the one (interpolated) at which the default is as accurate on clean pictures."""
    n: int
    clean: float
    """Clean accuracy of what the default is compared with."""
    ours: float
    theirs: float
    difference: float
    ci_low: float
    ci_high: float

    @property
    def verdict(self) -> str:
        """`below` and `above` when the 95 % interval of the difference leaves out zero, else `level`."""
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
    """Mean bytes a frame of one encoding, and what the judge makes of what comes out of it."""

    source: str
    encoding: str
    setting: float | None
    """Drop ratio or quality."""
    n: int
    bytes: float
    raw_bytes: float
    judge: str
    accuracy: float | None
    """Of all pictures, not only of those classified correctly; None where only bytes are counted."""


@dataclass(frozen=True)
class JudgeRow:
    """A judge: its model, the pictures that were looked at, and those that the bare network gets right."""

    name: str
    model_id: str
    data: str
    pictures: int
    correct: int
    command: str


@dataclass(frozen=True)
class PlotRow:
    """A plot of pictures that no other row holds."""

    name: str
