"""Model bundles: users bring their own network unmodified, in a folder with `model.toml` and weights."""

from processors.bundle.bundle import LUMA, Bundle
from processors.bundle.load import load_bundle, shipped_bundle
from processors.bundle.model_toml import BundleSettings, DriftSettings, InputSettings, Policy, read_settings
from processors.bundle.strip_table import (
    CleanTail,
    CombinedThreshold,
    DroppedStripThreshold,
    StripSettings,
    StripThreshold,
    Typicality,
)

__all__ = [
    "LUMA",
    "Bundle",
    "BundleSettings",
    "CleanTail",
    "CombinedThreshold",
    "DriftSettings",
    "DroppedStripThreshold",
    "InputSettings",
    "Policy",
    "StripSettings",
    "StripThreshold",
    "Typicality",
    "load_bundle",
    "read_settings",
    "shipped_bundle",
]
