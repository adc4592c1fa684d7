"""Creation of a bundle from a user's network. The network is tried, and the bundle is written whole or not at all.

This module runs the network: `infra.bundling.trial` calls it in a child process with limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from pydantic import ValidationError

from infra.bundling.bundle_request import BundleRequest, PrintLine, Skipped, Summary
from infra.bundling.certainty import DROP_RATIO, calibrate_certainty
from infra.bundling.certainty import LEAST_PICTURES as LEAST_CERTAIN
from infra.bundling.class_names import distinct, read_class_names
from infra.bundling.folder import appearing
from infra.bundling.gallery import UNKNOWN, picture_files, read_gallery
from infra.bundling.imagenet import OVERLAYS, of_imagenet, write_generated_strip
from infra.bundling.label_checks import LabelResult, judge
from infra.bundling.networks import Network, of_onnx, of_tflite, of_timm, of_torchscript, of_torchvision
from infra.bundling.strip_table import LEAST_PICTURES, calibrate_strip
from lab.data import LabelledPictures
from lab.drift import write_drift
from lab.strip.calibrate import FRR
from lab.strip.table import replace_file, strip_toml
from lab.training.bundle import to_toml
from processors.bundle import Bundle, BundleSettings, InputSettings, load_bundle
from processors.pipeline import Pipeline
from schemas.errors import BundleError, ConfigError
from schemas.runtime.rejected_values import expectation, received

MOST_PICTURES: Final = 400
"""The most pictures of a calibration folder, spread evenly over the classes."""
_BLIND_BITS: Final = 0.01
_TRIED: Final = 8
_SHARE_ERROR: Final = 1e-2
_MOST_ERROR: Final = 0.25
_COARSEST: Final = 1 / 128
"""The largest step of quantised shares, in 7 bits: a larger gap is one between few outputs."""


@dataclass(frozen=True)
class BundleSummary:
    """The summary of a finished bundle."""

    bundle: Bundle
    origin: str
    judged: LabelResult | None = None
    strip: str | None = None
    """STRIP's calibration in words; None without one."""
    unsure: str | None = None
    """The calibration of `unsure` in words; None without one."""
    notes: list[str] = field(default_factory=list)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Contradictions between the user's description and the pictures."""
        return () if self.judged is None else self.judged.doubts

    @property
    def summary(self) -> Summary:
        """The summary for other processes, without the network."""
        stated = self.bundle.settings
        return Summary(
            self.bundle.model_id, self.origin, stated.format, stated.input.channels, stated.input.height,
            stated.input.width, len(stated.classes), None if self.judged is None else self.judged.accuracy,
            self.strip, self.unsure, tuple(self.notes), self.doubts,
        )  # fmt: skip


def create(
    wanted: BundleRequest,
    out: Path,
    print_line: PrintLine = lambda line: None,
    skipped: Skipped = lambda name, why: None,
) -> BundleSummary:
    """Write the bundle into the folder `out`, which does not exist yet or is empty. Raises ConfigError, BundleError.

    The user chose the network and knows its origin. A TorchScript file runs only when code was allowed, see
    `processors.bundle.code`.
    """
    with appearing(out) as folder:
        return fill(wanted, folder, out, print_line, skipped)


def fill(wanted: BundleRequest, folder: Path, out: Path, print_line: PrintLine, skipped: Skipped) -> BundleSummary:
    """Write the bundle for `out` into `folder`. Raises ConfigError, BundleError."""
    names = None if wanted.classes is None else read_class_names(wanted.classes)
    network = _network(wanted, folder, None if names is None else len(names))
    notes = list(network.notes)
    settings = _settings(wanted, network, names, out, notes)
    # The loader accepts any outputs of a network described by probabilities; their scale is measured next.
    _write(folder, settings.model_copy(update={"output": "probabilities"}))
    scale = scale_of(load_bundle(folder, torch.device("cpu"), vouched=True))
    settings = settings.model_copy(update={"output": "probabilities" if scale == "probabilities" else "logits"})
    _write(folder, settings)
    if scale == "probabilities":
        notes.insert(0, 'the network ends in a softmax: model.toml says output = "probabilities"')
    if scale == "sigmoids":
        notes.insert(
            0,
            "the network seems to end in sigmoids: its outputs are between 0 and 1, and do not sum to 1. A verdict is "
            "one class per picture: export the network without them",
        )
    bundle = load_bundle(folder, torch.device("cpu"), vouched=True)
    if settings.input.channels == 1:
        notes.append(
            "the network takes grey pictures: cameras' colours become luma, and a trigger that differs from its "
            "surroundings by colour alone is not there for it"
        )
    if wanted.calibrate is None and wanted.origin == "imagenet":
        strip = write_generated_strip(folder)
        notes.append(
            "STRIP's table comes from generated pictures; --calibrate FOLDER with pictures as the cameras will see "
            "them makes a closer one, and a drift reference"
        )
        words = f"suspect below {strip.threshold_bits:.3f} bits, by generated pictures under {OVERLAYS} overlays"
        return BundleSummary(
            load_bundle(folder, torch.device("cpu"), vouched=True), wanted.origin, None, words, notes=notes
        )
    if wanted.calibrate is None:
        notes.append(
            "no [strip] table: no frame is checked for triggers; --calibrate FOLDER with pictures as the cameras will "
            "see them makes one"
        )
        return BundleSummary(bundle, wanted.origin, notes=notes)
    asked = bundle.settings.unsure_below > 0 if wanted.unsure is None else wanted.unsure
    return calibrate(
        folder, bundle, wanted.calibrate, wanted.strip_s, print_line, skipped, origin=wanted.origin, unsure=asked,
        notes=notes,
    )  # fmt: skip


def calibrate(
    folder: Path,
    bundle: Bundle,
    pictures: Path,
    strip_s: float,
    print_line: PrintLine,
    skipped: Skipped,
    *,
    origin: str,
    unsure: bool = False,
    notes: Sequence[str] = (),
) -> BundleSummary:
    """Write STRIP's table and the drift reference, made from a folder of clean pictures, into the bundle in `folder`.

    With `unsure`, the pictures also set temperature and limit of `unsure`. Raises ConfigError, BundleError.
    """
    notes = list(notes)
    chosen = picture_files(pictures, bundle.settings.classes, MOST_PICTURES)
    print_line(f"reading {len(chosen)} pictures")
    gallery = read_gallery(Pipeline(bundle), chosen, skipped)
    judged = judge(bundle, gallery) if chosen.labelled else None
    limits = None
    if unsure:
        bundle, limits = _certain(folder, bundle, gallery, notes)
    if not chosen.labelled:
        notes.append(
            "the pictures have no classes: in sub-folders named by class, they would show a wrong normalisation"
        )
    before = bundle.settings.strip
    unchanged = "no [strip] table: no frame is checked for triggers" if before is None else "the [strip] table stays"
    if len(gallery) < LEAST_PICTURES:
        notes.append(
            f"{unchanged}; expected at least {LEAST_PICTURES} pictures for a new one and a drift reference, got "
            f"{len(gallery)}"
        )
        return BundleSummary(bundle, origin, judged, unsure=limits, notes=notes)
    write_drift(folder, bundle, gallery)
    if not strip_s:
        notes.append(f"{unchanged}; --strip-seconds 0 leaves no time for a new one")
        return BundleSummary(
            load_bundle(folder, torch.device("cpu"), vouched=True), origin, judged, unsure=limits, notes=notes
        )
    print_line("calibrating STRIP")
    strip, used = calibrate_strip(folder, bundle, gallery, strip_s)
    bundle = load_bundle(folder, torch.device("cpu"), vouched=True)
    if before is not None and (before.dropped or before.combined is not None):
        notes.append(
            "removed with the former overlays: the thresholds of dropped frames and the p-value; `pointillist lab "
            "calibrate` makes them"
        )
    if strip.threshold_bits < _BLIND_BITS:
        notes.append(
            "STRIP's threshold is next to nothing: the network is certain of whatever it is shown, and no trigger "
            "stands out; is the normalisation right?"
        )
    if strip.frr > FRR:
        notes.append(
            "STRIP was calibrated from few pictures: `pointillist lab calibrate` takes hundreds, and is better"
        )
    overlays = 0 if bundle.overlays is None else len(bundle.overlays)
    words = (
        f"suspect below {strip.threshold_bits:.3f} bits, {strip.frr:.1%} of clean frames or less, by {used} pictures "
        f"under {overlays} overlays"
    )
    return BundleSummary(bundle, origin, judged, words, limits, notes)


def _certain(folder: Path, bundle: Bundle, gallery: LabelledPictures, notes: list[str]) -> tuple[Bundle, str | None]:
    """Let the pictures set temperature and limit of `unsure`, and return the new bundle and the result in words."""
    if len(gallery) < LEAST_CERTAIN:
        notes.append(f"unsure: expected at least {LEAST_CERTAIN} pictures to calibrate it, got {len(gallery)}")
        return bundle, None
    found = calibrate_certainty(bundle, gallery)
    if not found.named:
        notes.append("unsure: no confidence parts right verdicts from wrong ones on these pictures: all read `unsure`")
    _write(
        folder,
        bundle.settings.model_copy(update={"temperature": found.temperature, "unsure_below": found.unsure_below}),
    )
    basis = "right" if (gallery.labels != UNKNOWN).all() else "the same on other views of the picture"
    words = (
        f"below {found.unsure_below:.2f} at temperature {found.temperature:.2f}; behind a drop of {DROP_RATIO:.0%}, "
        f"{found.named:.0%} of {len(gallery)} verdicts are named, {found.right:.0%} of those are {basis}"
    )
    return load_bundle(folder, torch.device("cpu"), vouched=True), words


def _network(wanted: BundleRequest, folder: Path, classes: int | None) -> Network:
    match wanted.origin:
        case "onnx":
            return of_onnx(Path(wanted.network), folder, wanted.size, classes)
        case "tflite":
            return of_tflite(Path(wanted.network), folder, wanted.size)
        case "torchscript":
            return of_torchscript(Path(wanted.network), folder, wanted.size, wanted.channels)
        case "torchvision":
            return of_torchvision(wanted.network, wanted.weights, folder, wanted.size, classes)
        case "imagenet":
            return of_imagenet(folder)
        case "timm":
            return of_timm(wanted.network, wanted.weights, folder, wanted.size, classes)


def _settings(
    wanted: BundleRequest, network: Network, names: list[str] | None, out: Path, notes: list[str]
) -> BundleSettings:
    if names is None:
        names = list(network.class_names)
        if not names:
            raise ConfigError(
                "--classes is missing: expected a file with the names of the network's classes, in their order. "
                "Give --classes FILE."
            )
    if len(names) != network.classes:
        raise ConfigError(
            f"--classes: expected {network.classes} names, as many as the network has outputs, got "
            f"{len(names)}. Correct the list."
        )
    classes, repeated = distinct(names)
    if repeated:
        notes.append(f"class names that occur twice have their output's number behind them: {', '.join(repeated[:5])}")
    normalisation = wanted.normalisation(network.normalisation).of(network.channels)
    if len(normalisation.mean) != network.channels:
        raise ConfigError(
            f"--mean: expected {network.channels} numbers, one a channel, got {len(normalisation.mean)}. "
            "Correct the list."
        )
    try:
        stated = InputSettings(
            height=network.height, width=network.width, channels=1 if network.channels == 1 else 3,
            mean=list(normalisation.mean), std=list(normalisation.std), policy=wanted.policy or network.policy,
        )  # fmt: skip
        return BundleSettings(
            name=wanted.name or _name_of(out), version=wanted.version, format=network.format, weights=network.weights,
            factory=network.factory, factory_arguments=dict(network.factory_arguments), classes=classes,
            unsure_below=network.unsure_below, temperature=network.temperature, input=stated,
            groups={group: [classes[place] for place in places] for group, places in network.groups.items()},
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "value_error" else f", got {received(first['input'])}"
        raise ConfigError(f"{where}: {expectation(first)}{got}. Choose another network or option.") from None


def _name_of(folder: Path) -> str:
    kept = "".join(
        each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in folder.resolve().name
    )
    return kept.lstrip("._-")[:64] or "network"


def _write(folder: Path, settings: BundleSettings) -> None:
    text = to_toml(settings.model_dump(exclude_none=True, exclude={"strip"}))
    if settings.strip is not None:
        text += "\n" + strip_toml(settings.strip)
    replace_file(folder / "model.toml", text.encode())


@torch.inference_mode()
def scale_of(bundle: Bundle) -> Literal["logits", "probabilities", "sigmoids"]:
    """Return the scale of a network's outputs, measured on noise: shares that sum to 1, other shares, or logits.

    Quantised outputs are multiples of a step. A sum of such shares is off by up to half a step for each class.
    """
    wanted = bundle.settings.input
    shape = (_TRIED, wanted.channels, wanted.height, wanted.width)
    noise = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    output = bundle.network(bundle.normalised(noise)).float()
    if not output.isfinite().all():
        raise BundleError(
            "the network: expected finite outputs for pictures of noise, got NaN or infinity. Correct its weights or "
            "the normalisation, or export it in float32."
        )
    if output.amin() < 0 or output.amax() > 1 + _SHARE_ERROR:
        return "logits"
    steps = np.diff(np.unique(output.numpy()))
    step = min(float(steps.min()), _COARSEST) if len(steps) else 0.0
    error = max(_SHARE_ERROR, min(_MOST_ERROR, output.shape[1] * step / 2))
    return "probabilities" if bool(((output.sum(1) - 1).abs() < error).all()) else "sigmoids"
