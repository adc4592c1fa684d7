"""What the experiment does with which sick model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.detection import Detection
from lab.experiments.codefend.findings import PURE

IMPURE: Final = {"10 % impure": 0.1, "30 % impure": 0.3}
FEW_CAMERAS: Final = "four cameras"
EVERY: Final = "all stamped"
"""What somebody else noticed, where STRIP flags nothing."""
MAIN: Final = "resnet20-c-1"
"""On which everything is tried."""
BLENDED: Final = "resnet20-blended"
RIVALS: Final = ("fine-pruning", "Neural Cleanse", "variance ratio")
WARP: Final = "resnet20-warp"
KINDS: Final = {
    BLENDED: "blended",
    "resnet20-random": "random place",
    WARP: "warp, input-dependent",
    "resnet20-source": "source-specific",
    "resnet20-two": "two",
}
"""Triggers that are no single patch."""
PATCHES: Final = (
    "mnist-a-02", "mnist-a-1", "mnist-a-10",
    "gtsrb-b-02", "gtsrb-b-1", "gtsrb-b-10",
    "cnn-c-02", "cnn-c-1", "cnn-c-10", "cnn-d-1",
    "resnet20-c-02", "resnet20-c-1", "resnet20-c-10", "resnet20-d-1",
)  # fmt: skip
POISONED_AGAIN: Final = "mnist-a-1"
PAPER_MODE: Final = (MAIN,)
SEQUENTIAL: Final = ("mnist-a-1", MAIN)
REBUILT: Final = {MAIN: (0.25, 0.5)}


@dataclass(frozen=True)
class Budget:
    """How much of it: which models, and pictures of each kind for STRIP."""

    models: tuple[str, ...] = (*PATCHES, *KINDS)
    images: int = 2500
    """Clean and as many stamped ones, of the models with a patch at 1 %."""
    other_images: int = 1000
    """The same for the others, and for dropped and rebuilt frames."""
    ratios: tuple[float, ...] = (0.25, 0.5)
    """Of dropped and rebuilt frames."""

    def detections(self, model: str) -> list[Detection]:
        """The rows of STRIP."""
        if model not in self.models:
            return []
        central = model in PATCHES and model.endswith("-1")
        most = self.images if central else self.other_images
        rows = [Detection(0.0, False, most)]
        if model in SEQUENTIAL:
            rows.append(Detection(0.0, True, most))
        rebuilt = [ratio for ratio in REBUILT.get(model, ()) if ratio in self.ratios]
        return rows + [Detection(ratio, False, self.other_images) for ratio in rebuilt]

    def cures(self, model: str) -> list[tuple[str, str]]:
        """Method and quarantine of each repair, the quick ones first."""
        if model not in self.models:
            return []
        found = [("default", EVERY if model == WARP else PURE)]
        if model in PATCHES or model == BLENDED:
            found.append((FINE_TUNING, PURE))
        if model == MAIN:
            found += [("default", kind) for kind in (*IMPURE, FEW_CAMERAS)]
            found += [(rival, PURE) for rival in RIVALS]
            found += [("variance ratio", "30 % impure")]
        if model == BLENDED:
            found += [("fine-pruning", PURE), ("variance ratio", PURE)]
        if model == POISONED_AGAIN:
            found += [("poisoned again", PURE), ("poisoned again, then default", PURE)]
        if model in PAPER_MODE:
            found.append(("paper", PURE))
        return found
