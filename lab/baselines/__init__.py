"""Defences from the literature that clean a picture in front of an unchanged network."""

from lab.baselines.bit_depth import BitDepth
from lab.baselines.contract import Baseline
from lab.baselines.feature_distillation import FeatureDistillation
from lab.baselines.jpeg import Jpeg
from lab.baselines.pixel_deflection import PixelDeflection
from lab.baselines.rand import Rand
from lab.baselines.shield import Shield

__all__ = ["Baseline", "BitDepth", "FeatureDistillation", "Jpeg", "PixelDeflection", "Rand", "Shield"]
