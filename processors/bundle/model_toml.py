"""Model bundles: a folder with `model.toml` and weights, so that users bring their own network unmodified.

    name = "scene"
    version = "1"
    format = "safetensors"               # or "torchscript", "onnx", "tflite"
    weights = "weights.safetensors"
    factory = "network.py:small"         # safetensors only: a file of the bundle, or a package's, see `--factories`
    output = "logits"                    # or "probabilities", when the network ends in a softmax
    classes = ["pause", "no-entry"]
    # unsure_below = 0.5                 # optional: verdicts of less confidence read "unsure"
    # temperature = 1.5                  # optional: divides the logits before confidence is computed
    # precision = "int8"                 # optional: 8-bit integers where they are faster than float32
    # calibration = "calibration.npy"    # with it: (N, height, width, channels) uint8, at least 16 pictures

    [factory_arguments]
    classes = 2

    [input]
    height = 32
    width = 32
    channels = 3
    mean = [0.5, 0.5, 0.5]               # on the scale [0, 1], one per channel
    std = [0.25, 0.25, 0.25]
    policy = "resize"                    # or "crop", "tile", "motion": the treatment of frames of another size

    [groups]                             # optional: each class belongs to one group at most
    sign = ["no-entry"]

    [[preprocess]]                       # optional, in this order: stages that pictures pass before the network
    stage = "dct-quantisation"           # see `processors.stages.preprocess`
    table = "dct-table.txt"

    [[preprocess]]
    stage = "grid-distortion"
    limit = 0.15
    cell = 8

    [strip]                              # optional: without it no frame is checked for triggers
    overlays = "overlays.npy"            # (N, height, width, channels) uint8
    threshold_bits = 0.4                 # of whole frames
    frr = 0.01
    statistic = "mixture"                # optional: the kind of entropy; else "mean", the paper's
    clamped = false                      # optional: true clamps frame + overlay to [0, 1]
    accept_after = [2, 4, 8]             # optional: a frame is accepted after this many overlays
    accept_bits = [2.1, 1.8, 1.3]        # if it reaches this
    # accept_statistic = "joint"         # optional, with the statistic "mean": the statistic for accept_bits

    [[strip.dropped]]                    # optional: the same for frames that lost this many of each 64 pixels
    dropped_per_block = 16
    threshold_bits = 1.2
    frr = 0.01

    [strip.combined]                     # optional: a p-value of whole frames by all statistics, in place of STRIP's
    threshold = 0.0095
    frr = 0.01
    norms = 6                            # optional, safetensors only: batch norms that are amplified

    [strip.combined.together]            # the tail of clean frames, and of each statistic alike: entropy,
    quantiles = [0.5, 0.02, 0.004]       # disagreement, typicality, layer_disagreement, scaled_norms
    power = 0.9

    [strip.typicality]                   # optional, safetensors only: the features of whole frames
    features = "features.safetensors"    # means, known and whitening of the features of clean frames
    layers = ["blocks.8.bn1", "blocks.8.bn2"]
    earlier = ["blocks.7.bn2"]           # optional: earlier layers, which may disagree with the label
    log_mean = 2.4
    log_spread = 0.2

    [drift]                              # optional: without it no drift is measured
    reference = "drift.npy"              # (N, 8 + classes, at most 24) float32: features of the calibration pictures

`pointillist lab calibrate` writes the strip tables, `pointillist bundle calibrate` them and the drift table.

Every fault raises BundleError in one line when the bundle is loaded, not when frames arrive.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from processors.bundle.limits import MAX_SETTINGS_BYTES, check_size
from processors.bundle.strip_table import StripSettings
from processors.stages.preprocess import StageSettings, read_stage
from schemas.errors import BundleError, first_line

Policy = Literal["resize", "crop", "tile", "motion"]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
UNSURE: Final = "unsure"
"""The name of a verdict whose confidence is too low for a class."""
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_Name = Annotated[str, Field(pattern=NAME, max_length=64)]


class Scores(NamedTuple):
    """The network's result for one frame: indices with confidence in [0, 1]."""

    class_id: int
    confidence: float
    best: tuple[tuple[int, float], ...] = ()
    """The best classes, the first one first; empty unless `BundleSettings.ranks`."""
    group: tuple[int, float] | None = None
    """The best group; None without groups."""


class Answer(NamedTuple):
    """A verdict in words."""

    name: str
    confidence: float
    """Confidence of `name` in [0, 1]; of the best class if the name is `UNSURE`."""
    group: str
    """The group, if it is certain; else empty."""
    group_confidence: float
    best: tuple[tuple[str, float], ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputSettings(_Table):
    """The network's input: pictures (channels, height, width), normalised as (x − mean) / std."""

    height: int = Field(ge=1, le=4096)
    """Pixels of a column."""
    width: int = Field(ge=1, le=4096)
    """Pixels of a row."""
    channels: Literal[1, 3]
    """1 is grey, and colours become luma; 3 is RGB, in this order."""
    mean: list[_Finite]
    """Mean that is subtracted, on the scale [0, 1], one number a channel."""
    std: list[Annotated[_Finite, Field(gt=0)]]
    """Standard deviation that divides the difference, one number a channel."""
    policy: Policy
    """Treatment of frames of another size: resized to this one, cropped to the middle, or cut into tiles, of which the
    most confident one decides. `motion` takes the square around the motion that the camera states in a larger frame,
    and resizes the whole frame if nothing moves.
    """

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"expected {self.channels} values in {name}, one per channel, got {len(values)}")
        return self


class DriftSettings(_Table):
    """The features that live frames are compared with; see `processors.stages.discrepancy`."""

    reference: str
    """Features of calibration pictures and of the verdicts on them: a file of the bundle, (N, features) float32."""


class BundleSettings(_Table):
    """The contents of `model.toml`."""

    name: _Name
    """The network's name in verdicts: letters, digits, `.`, `_` and `-`."""
    version: _Name
    """The network's version in verdicts; the digest of its weights is added to it."""
    format: Literal["safetensors", "torchscript", "onnx", "tflite"]
    """The file format of `weights`."""
    weights: str
    """A file of the bundle."""
    factory: str | None = None
    """The function that creates the network for these weights; required with the format `safetensors`, else not
    allowed."""
    factory_arguments: dict[str, Any] = Field(default_factory=dict)
    """The factory's arguments."""
    output: Literal["logits", "probabilities"] = "logits"
    """`probabilities` if the network ends in a softmax."""
    classes: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    """Distinct names in the order of the network's outputs."""
    unsure_below: float = Field(default=0.0, ge=0, le=1)
    """Confidence below which a verdict reads `unsure` instead of the name of the class or of its group."""
    temperature: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    """Number that divides the logits before confidence is computed: above 1, the network is less certain. Guo et al.,
    "On Calibration of Modern Neural Networks" (ICML 2017). STRIP does not use it."""
    groups: dict[Annotated[str, Field(min_length=1, max_length=64)], list[str]] = Field(
        default_factory=dict, max_length=256
    )
    """Groups of classes, by name. A group's confidence is the sum of its classes'. A class belongs to one at most."""
    precision: Literal["float32", "int8"] = "float32"
    """`int8` allows 8-bit integers wherever they are faster; see `processors.device.backends`."""
    calibration: str | None = None
    """Pictures whose activations give the range of 8-bit integers, required with `int8`. A file of the bundle: (N,
    height, width, channels) uint8 with N from 16 to 1,024.
    """
    input: InputSettings
    preprocess: list[Annotated[SerializeAsAny[StageSettings], BeforeValidator(read_stage)]] = Field(
        default_factory=list, max_length=16
    )
    strip: StripSettings | None = None
    drift: DriftSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.format == "safetensors") != (self.factory is not None):
            got = "none" if self.factory is None else repr(self.factory)
            wanted = "a factory" if self.format == "safetensors" else "no factory"
            raise ValueError(f"format {self.format}: expected {wanted}, got {got}")
        if self.factory is None and self.factory_arguments:
            raise ValueError("factory_arguments: expected none without a factory")
        if self.strip is not None and self.strip.needs_module and self.format != "safetensors":
            raise ValueError(f"strip: expected the format safetensors for typicality and norms, got {self.format}")
        if (self.precision == "int8") != (self.calibration is not None):
            got = "none" if self.calibration is None else repr(self.calibration)
            wanted = "a calibration" if self.precision == "int8" else "no calibration"
            raise ValueError(f"precision {self.precision}: expected {wanted}, got {got}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: expected distinct names, got a repeated one")
        grouped = [name for names in self.groups.values() for name in names]
        if unknown := set(grouped) - set(self.classes):
            raise ValueError(f"groups: expected names of classes, got {min(unknown)!r}")
        if len(set(grouped)) != len(grouped):
            raise ValueError("groups: expected each class in one group at most, got a repeated one")
        return self

    @property
    def ranks(self) -> bool:
        """Whether verdicts name the best classes and the group: the network has groups, or can be unsure."""
        return bool(self.groups) or self.unsure_below > 0

    def answer(self, scores: Scores) -> Answer:
        """Return the verdict in words: the class if it is certain, else its group if that is, else `UNSURE`."""
        best = tuple((self.classes[class_id], confidence) for class_id, confidence in scores.best)
        group, group_confidence = "", 0.0
        if scores.group is not None:
            number, group_confidence = scores.group
            if group_confidence >= self.unsure_below:
                group = list(self.groups)[number]
        if scores.confidence >= self.unsure_below:
            own = self.classes[scores.class_id]
            return Answer(own, scores.confidence, group, group_confidence, best)
        if group:
            return Answer(group, group_confidence, group, group_confidence, best)
        return Answer(UNSURE, scores.confidence, "", group_confidence, best)


def read_settings(folder: Path) -> BundleSettings:
    """Return the checked `model.toml` of `folder`; raises BundleError in one line that names the wrong keys."""
    path = folder / "model.toml"
    try:
        check_size(path, MAX_SETTINGS_BYTES)
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: expected a readable model.toml, got {error.strerror}. Give the folder of a bundle."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: expected TOML, got {first_line(error)}. Correct the file.") from error
    try:
        return BundleSettings.model_validate(table)
    except ValidationError as error:
        raise BundleError(f"{path}: " + "; ".join(_complaint(dict(e)) for e in error.errors())) from error


def _complaint(error: dict[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key"
    got = error["input"]
    shown = f", got {got!r}" if isinstance(got, str | int | float) else ""
    return f"{place}: {message}{shown}" if place else message
