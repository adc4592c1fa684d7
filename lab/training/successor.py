"""A bundle derived from another one: the same except for weights, version and STRIP table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import torch
from torch import nn

from lab.data import LabelledPictures
from lab.drift import write_drift
from lab.strip.blind import is_blind
from lab.strip.order import shuffled
from lab.strip.table import calibrate_bundle, write_strip_table
from lab.training.bundle import save_network, to_toml
from processors.bundle import Bundle, BundleSettings, StripSettings, load_bundle, read_settings
from processors.stages.discrepancy import LEAST_ROWS
from schemas.errors import ConfigError, StateError

LOCK: Final = ".work/lock"
"""Lock of the run that writes an output folder, relative to it."""
ONE_RUN: Final = "run into this folder"
_LONGEST_VERSION: Final = 64
_TABLE: Final = "model.toml"
_BESIDE: Final = ".beside"
_RECORDS: Final = ("training.md", "report.md", "report.json")
"""Files on the training and the figures of one network."""
_CALIBRATED: Final = re.compile(r"overlays(-[0-9a-f]{8})?\.npy|features-[0-9a-f]{8}\.safetensors")


def check_out(out: Path, source: Path, mark: str) -> None:
    """Reject a folder before the work if it is not writable, or contains a bundle without the suffix `mark`."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: expected a folder to write, got the file {out}")
    if out.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(out.resolve()):
        raise ConfigError(
            f"--out: expected a folder that neither lies in the given bundle's nor contains it, got {out}. Choose "
            "another folder."
        )
    if (out / _TABLE).exists() and not read_settings(out).version.endswith(mark):
        raise ConfigError(f"--out: expected an empty folder or that of an earlier run, got another bundle, {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: expected a writable folder, got {out}: {error.strerror}") from None


def withdraw(out: Path) -> None:
    """Delete an earlier run's `model.toml`: without it the folder is not a bundle."""
    (out / _TABLE).unlink(missing_ok=True)


def write_successor(
    out: Path,
    source: Path,
    network: nn.Module,
    clean: LabelledPictures,
    mark: str,
    *,
    dropped: bool = False,
    unseen: LabelledPictures | None = None,
) -> tuple[Bundle, str]:
    """Write `network` as a bundle into `out` and load it. Return the bundle and a line on its calibration.

    `source` is the folder of the original bundle. The new version is the old one with `mark` appended. STRIP's overlays
    and threshold come from `clean` pictures if these suffice. Otherwise those of `source` are copied, and the line
    gives the reason. A drift reference is computed again if there are enough `unseen` pictures, by default the clean
    ones, else it is left out: the network is surer on pictures that trained it than on live frames. Thresholds
    of frames with dropped pixels are not copied, because they belong to the old network. With `dropped` they are
    calibrated like that of whole frames. The bundle is assembled in another folder, so `out` is a bundle only after it
    is complete and has been loaded once. Raises StateError if `out` holds unrelated files.
    """
    beside = out / _BESIDE
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    settings = read_settings(source)
    _copy_code(source, beside, settings)
    weights = beside / settings.weights
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, weights, settings.format)
    own = settings.version.removesuffix(f"-{mark}")
    version = f"{own[: _LONGEST_VERSION - len(mark) - 1]}-{mark}"
    fresh = settings.model_copy(update={"version": version, "strip": None, "drift": None})
    (beside / _TABLE).write_text(to_toml(fresh.model_dump(exclude_none=True)), encoding="utf-8")
    line = _calibrate(beside, source, settings, clean, dropped)
    if settings.unsure_below:
        line += (
            f". temperature {settings.temperature:g} and unsure_below {settings.unsure_below:g} are the given "
            f"bundle's: `pointillist bundle calibrate {out} --images FOLDER --unsure --strip-seconds 0` sets them for "
            "this network"
        )
    bundle = load_bundle(beside, torch.device("cpu"))
    reference = clean if unseen is None else unseen
    if settings.drift is not None and len(reference) >= LEAST_ROWS:
        write_drift(beside, bundle, reference)
    _move(beside, out)
    return load_bundle(out, torch.device("cpu")), line


def _move(beside: Path, out: Path) -> None:
    """Move each file to its place, the table last."""
    withdraw(out)
    files = [
        file.relative_to(beside) for file in beside.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]
    for name in sorted(files, key=lambda name: name == Path(_TABLE)):
        place = out / name
        if place.exists() and not place.is_file():
            raise StateError(f"{place}: expected nothing or a file of an earlier run, got another file")
        place.parent.mkdir(parents=True, exist_ok=True)
        (beside / name).replace(place)
    shutil.rmtree(beside, ignore_errors=True)


def _copy_code(source: Path, out: Path, settings: BundleSettings) -> None:
    """Copy the files that the bundle's own code and its stages need. Weights, settings and overlays are written new."""
    needed = {name for stage in settings.preprocess for name in stage.files}
    own = {_TABLE, settings.weights}
    own |= set(settings.strip.files) if settings.strip else set()
    own |= {settings.drift.reference} if settings.drift else set()
    for file in source.rglob("*"):
        name = file.relative_to(source)
        if not file.is_file() or str(name) in own or "__pycache__" in name.parts or name.parts[0].startswith("."):
            continue
        if str(name) not in needed and (str(name) in _RECORDS or _CALIBRATED.fullmatch(str(name))):
            continue
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _calibrate(out: Path, source: Path, settings: BundleSettings, clean: LabelledPictures, dropped: bool) -> str:
    given = settings.strip
    combined = given is not None and given.combined is not None
    if combined:
        clean = shuffled(clean)
    try:
        strip = calibrate_bundle(
            out,
            clean,
            frr=0.01 if given is None else given.frr,
            combined=combined,
            device=torch.device("cpu"),
        )
        if is_blind(strip):
            strip = strip.model_copy(update={"combined": None, "typicality": None})
            write_strip_table(out, strip)
        for each in settings.strip.dropped if settings.strip and dropped else ():
            calibrate_bundle(
                out, clean, frr=each.frr, dropped_per_block=each.dropped_per_block, device=torch.device("cpu")
            )
    except ConfigError as error:
        if settings.strip is None:
            return f"STRIP is not calibrated, as in the given bundle: {error}"
        shutil.copyfile(source / settings.strip.overlays, out / settings.strip.overlays)
        kept = settings.strip.model_copy(update={"dropped": [], "combined": None, "typicality": None})
        write_strip_table(out, kept)
        line = f"STRIP's overlays and threshold ({kept.threshold_bits} bits) are the given bundle's: {error}"
        return line + _lost(settings.strip, kept)
    line = f"STRIP is recalibrated for this network: suspect below {strip.threshold_bits} bits (FRR {strip.frr})"
    return line if given is None else line + _lost(given, read_settings(out).strip)


def _lost(given: StripSettings, strip: StripSettings | None) -> str:
    """Return a sentence on the thresholds of `given` that the new table lacks, or nothing."""
    lost = ["the p-value of all statistics"] if given.combined and not (strip and strip.combined) else []
    if given.dropped and not (strip and strip.dropped):
        lost.append("the thresholds of dropped frames")
    return f". It lacks {' and '.join(lost)}: `pointillist lab calibrate` makes them" if lost else ""
