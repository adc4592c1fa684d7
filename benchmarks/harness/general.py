"""The general network of real cameras, made from the installed weights as `make setup` does."""

from __future__ import annotations

from pathlib import Path

from bundles import GENERAL
from infra.bundling.bundle_request import BundleRequest
from infra.bundling.create import create


def general_bundle(folder: Path) -> Path:
    """Write the bundle `imagenet` of this code below `folder` and return its place; one made earlier may be older."""
    place = folder / GENERAL
    create(BundleRequest("imagenet", "EfficientNet-Lite0"), place)
    return place
