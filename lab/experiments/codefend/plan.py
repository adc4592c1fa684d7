"""The plan of the experiment on backdoors: detections and repairs for each backdoored model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.backdoor.catalogue import MODELS
from lab.experiments.codefend.cures import FINE_TUNING
from lab.experiments.codefend.detection import Detection
from lab.experiments.codefend.findings import PURE
from lab.experiments.codefend.scores import NUMBERS, Numbers
from lab.experiments.codefend.still_scores import SCENES, Scenes

IMPURE: Final = {"10 % impure": 0.1, "30 % impure": 0.3}
FEW_CAMERAS: Final = "four cameras"
EVERY: Final = "all stamped"
"""The quarantine of all stamped frames, as if found by other means. It is for the rivals on the warp alone."""
FLAGGED: Final = "flagged"
"""The quarantine of the stamped frames that all statistics together flag."""
MAIN: Final = "resnet20-c-1"
"""The model on which every method is measured."""
BLENDED: Final = "resnet20-blended"
RIVALS: Final = ("fine-pruning", "Neural Cleanse", "variance ratio")
WARP: Final = "resnet20-warp"
SOURCE: Final = "resnet20-source"
WITHOUT_TRIGGER: Final = ("clean", "ft-sam", "i-bau", "anp", "npd")
"""Repairs from clean pictures alone: our mode `clean`, and rivals."""
KINDS: Final = {
    BLENDED: "blended",
    "resnet20-random": "random place",
    WARP: "warp, one fixed field",
    SOURCE: "source-specific",
    "resnet20-two": "two",
}
"""Models with a trigger other than a single patch."""
PATCHES: Final = (
    "mnist-a-02", "mnist-a-1", "mnist-a-10",
    "gtsrb-b-02", "gtsrb-b-1", "gtsrb-b-10",
    "cnn-c-02", "cnn-c-1", "cnn-c-10", "cnn-d-1",
    "resnet20-c-02", "resnet20-c-1", "resnet20-c-10", "resnet20-d-1",
)  # fmt: skip
CATALOGUE: Final = {
    "resnet20-wanet": "warp with noise (WaNet)",
    "resnet20-sig": "clean label (SIG)",
    "resnet20-low": "low frequency",
    "resnet20-adaptive": "adaptive blend",
    "resnet20-strip-aware": "patch, hidden from STRIP",
    "resnet20-all-to-all": "patch, all-to-all",
    "resnet20-input-aware": "input-aware",
}
"""Models of other attacks. All statistics are measured on them, and the usual repair."""
COMPARED: Final = (WARP, SOURCE, BLENDED, MAIN, *CATALOGUE)
"""The models on which repairs without a trigger are measured."""
BY_ALL: Final = (WARP, SOURCE, *CATALOGUE)
"""The models whose quarantine has the frames that all statistics together flag: STRIP flags few."""
OWN_MODE: Final = {"resnet20-all-to-all": "quarantine"}
"""The mode of our repair for models that need another one than `default`."""
ATTACKS: Final = {
    MAIN: "patch (BadNets)", BLENDED: "blended", SOURCE: "patch, source-specific", **CATALOGUE,
}  # fmt: skip
"""The ten attacks: the model and the name of each."""
REPEATS: Final = tuple(name for name in MODELS if "-seed-" in name)
"""The headline models of STRIP with two more seeds: for detection alone."""
POISONED_AGAIN: Final = "mnist-a-1"
PAPER_MODE: Final = (MAIN,)
SEQUENTIAL: Final = ("mnist-a-1", MAIN)
REBUILT: Final = {MAIN: (0.25, 0.5)}


@dataclass(frozen=True)
class Budget:
    """The size of the experiment: the models, and the number of pictures of each kind for STRIP."""

    models: tuple[str, ...] = (*PATCHES, *KINDS, *CATALOGUE, *REPEATS)
    images: int = 2500
    """Number of clean pictures, and of stamped ones, for the models with a patch at 1 %."""
    other_images: int = 1000
    """The same number for all other models, and for dropped and rebuilt frames."""
    scores: Numbers = NUMBERS
    """Test pictures for the other statistics and for cameras."""
    scenes: Scenes = SCENES
    """Scenes of cameras that stay, for the ten attacks."""
    ratios: tuple[float, ...] = (0.25, 0.5)
    """Drop ratios of dropped and rebuilt frames."""

    def detections(self, model: str) -> list[Detection]:
        """Return the settings of STRIP for a model, one for each row."""
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
        """Return the method and quarantine of each repair of a model, the quick ones first."""
        if model not in self.models or model in REPEATS:
            return []
        found = [(OWN_MODE.get(model, "default"), FLAGGED if model in BY_ALL else PURE)]
        if model in PATCHES or model in COMPARED:
            found.append((FINE_TUNING, PURE))
        if model == MAIN:
            found += [("default", kind) for kind in (*IMPURE, FEW_CAMERAS)]
            found += [(rival, PURE) for rival in RIVALS]
            found += [("variance ratio", "30 % impure")]
        if model == BLENDED:
            found += [("fine-pruning", PURE), ("variance ratio", PURE)]
        if model in COMPARED:
            found += [(method, EVERY if model == WARP else PURE) for method in WITHOUT_TRIGGER]
        if model == POISONED_AGAIN:
            found += [("poisoned again", PURE), ("poisoned again, then default", PURE)]
        if model in PAPER_MODE:
            found.append(("paper", PURE))
        return found
