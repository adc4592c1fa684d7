"""The reference of `model.toml`, from the classes that read it."""

from __future__ import annotations

from typing import Final

from infra.reference.keys import Places, keys
from infra.reference.markdown import page
from processors.bundle import (
    BundleSettings,
    CleanTail,
    CombinedThreshold,
    DriftSettings,
    DroppedStripThreshold,
    InputSettings,
    StripSettings,
    Typicality,
)
from processors.stages.preprocess.registry import STAGES

_HEAD: Final = """\
A bundle is a folder with a `model.toml` and the files that it names. `pointillist bundle create` writes one from a
network of yours, `pointillist lab calibrate` its `[strip]` tables, `pointillist bundle calibrate` also `[drift]`; all
can be edited. An unknown key, a wrong type or a value out of its range is rejected when the bundle is loaded, in one
line that names it.

| `format` | `weights` is | needs | tools that do not apply |
| --- | --- | --- | --- |
| `safetensors` | tensors by name | `factory`, which makes the network | none |
| `torchscript` | a scripted or traced module: code | `--allow-code`, or a trusted signer | training, if frozen |
| `tflite` | a TensorFlow Lite graph | openvino | as for `onnx` |
| `onnx` | a graph in one file | onnxruntime | `lab repair`, `lab harden`, attacks that follow gradients |

A `factory` is `file.py:function` with the file in the bundle, which is code too, or `package.module:function` of what
ships (`processors.networks.…`) or of packages that `--factories` names. `torchvision_network` and `timm_network` of
`processors.networks.library` make networks of these libraries by `name`, where they are installed.
"""
_PLACES: Final[Places] = {
    CombinedThreshold: "[strip.combined](#stripcombined)",
    CleanTail: "[tail](#stripcombinedtail)",
    Typicality: "[strip.typicality](#striptypicality)",
}


def model_toml() -> str:
    """Return the page."""
    return page(
        "`model.toml`",
        _HEAD,
        keys("Top of the file", BundleSettings, left_out=("input", "preprocess", "strip", "drift")),
        keys("`[input]`", InputSettings),
        keys("`[strip]`", StripSettings, _PLACES, left_out=("dropped",)),
        keys("`[[strip.dropped]]`", DroppedStripThreshold),
        keys("`[strip.combined]`", CombinedThreshold, _PLACES),
        keys("`[strip.combined.TAIL]`", CleanTail),
        keys("`[strip.typicality]`", Typicality),
        keys("`[drift]`", DriftSettings),
        "## `[[preprocess]]`\n\nStages before the network, in their order; at most 16.",
        *(keys(f'`stage = "{name}"`', stage, left_out=("stage",), level=3) for name, stage in sorted(STAGES.items())),
    )
