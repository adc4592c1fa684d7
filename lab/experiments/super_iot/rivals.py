"""The baselines at the settings of their papers, and at others that cover their trade-off in clean accuracy."""

from __future__ import annotations

from typing import Final

from lab.baselines import Baseline, FeatureDistillation, Jpeg, PixelDeflection, Shield
from lab.cache import digest
from lab.experiments.super_iot.defences import Defence
from lab.provenance import made_by

STANDARD: Final[dict[str, Baseline]] = {
    "Shield": Shield(),
    "Feature Distillation": FeatureDistillation(),
    "Pixel Deflection": PixelDeflection(),
    "JPEG": Jpeg(75),
}
"""Baselines at the settings of their papers. 75 is the codec's usual quality."""

OTHERS: Final[dict[str, Baseline]] = {
    "Shield (qualities 5–20)": Shield((5, 10, 15, 20)),
    "Shield (qualities 10–40)": Shield((10, 20, 30, 40)),
    "Shield (qualities 60–90)": Shield((60, 70, 80, 90)),
    "Shield (qualities 80–95)": Shield((80, 85, 90, 95)),
    **{
        f"Feature Distillation (steps × {factor:g})": FeatureDistillation(30 * factor, 25 * factor)
        for factor in (0.25, 0.5, 0.75, 1.5)
    },
    **{f"Pixel Deflection (σ {sigma:g})": PixelDeflection(sigma=sigma) for sigma in (0.01, 0.02, 0.06, 0.08)},
    "Pixel Deflection (share .05)": PixelDeflection(share=0.05),
    "Pixel Deflection (share .2)": PixelDeflection(share=0.2),
    **{f"JPEG (quality {quality})": Jpeg(quality) for quality in (20, 40, 60, 85, 90, 95)},
}
"""The sweep of each baseline's parameter."""

OTHER_REPEATS: Final = 1


def rivals(repeats: int) -> list[Defence]:
    """Return all settings.

    Random baselines are repeated as often as ours at the setting of their paper, and less often at the others.
    """
    return [
        Defence(name, None, _repeats(baseline, most), baseline, digest(baseline, made_by(__name__)))
        for known, most in ((STANDARD, repeats), (OTHERS, min(repeats, OTHER_REPEATS)))
        for name, baseline in known.items()
    ]


def _repeats(baseline: Baseline, repeats: int) -> int:
    return repeats if isinstance(baseline, Shield | PixelDeflection) else 1
