"""The cured network as a bundle: everything of the sick bundle but its weights, version and STRIP table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import torch
from torch import nn

from lab.data import LabelledPictures
from lab.strip.table import calibrate_bundle, strip_toml
from lab.training.bundle import save_network, to_toml
from processors.bundle import Bundle, BundleSettings, load_bundle, read_settings
from schemas.errors import ConfigError, StateError

MARK: Final = "repaired"
_LONGEST_VERSION: Final = 64
_TABLE: Final = "model.toml"
_BESIDE: Final = ".cured"
_OVERLAYS: Final = re.compile(r"overlays(-[0-9a-f]{8})?\.npy")


def check_out(out: Path, source: Path, quarantine: Path) -> None:
    """Refuse before the work a folder that cannot be written, or that holds what a repair must not touch."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: expected a folder to write, got the file {out}")
    if out.resolve() == source.resolve() or source.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"--out: expected another folder than the sick bundle's, got {out}")
    if out.resolve().is_relative_to(quarantine.resolve()):
        raise ConfigError(f"--out: expected a folder outside of the quarantine, which is read as a whole; got {out}")
    if (out / _TABLE).exists() and not read_settings(out).version.endswith(MARK):
        raise ConfigError(f"--out: expected an empty folder or that of an earlier repair, got another bundle, {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror}") from None


def withdraw(out: Path) -> None:
    """Take away an earlier repair's `model.toml`: without one the folder is no bundle."""
    (out / _TABLE).unlink(missing_ok=True)


def write_cured(out: Path, source: Path, network: nn.Module, clean: LabelledPictures) -> tuple[Bundle, str]:
    """Write `network` as a bundle into `out` and load it; a line says how STRIP was calibrated.

    `source` is the sick bundle's folder. STRIP's overlays and threshold come from `clean` pictures when they suffice;
    else the sick bundle's are carried over, and the line says why. Thresholds of frames with dropped pixels are not
    carried over: they belong to the sick network. It is put together beside, so that `out` is a bundle only when all of
    it is there and has been loaded once. Raises StateError when `out` holds files of something else.
    """
    beside = out / _BESIDE
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    settings = read_settings(source)
    _copy_code(source, beside, settings)
    weights = beside / settings.weights
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, weights, settings.format)
    version = f"{settings.version[: _LONGEST_VERSION - len(MARK) - 1]}-{MARK}"
    fresh = settings.model_copy(update={"version": version, "strip": None})
    (beside / _TABLE).write_text(to_toml(fresh.model_dump(exclude_none=True)), encoding="utf-8")
    line = _calibrate(beside, source, settings, clean)
    load_bundle(beside, torch.device("cpu"))
    _move(beside, out)
    return load_bundle(out, torch.device("cpu")), line


def _move(beside: Path, out: Path) -> None:
    """Each file to its place, the table last."""
    withdraw(out)
    files = [
        file.relative_to(beside) for file in beside.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ]
    for name in sorted(files, key=lambda name: name == Path(_TABLE)):
        place = out / name
        if place.exists() and not place.is_file():
            raise StateError(f"{place}: expected nothing or a file of an earlier repair")
        place.parent.mkdir(parents=True, exist_ok=True)
        (beside / name).replace(place)
    shutil.rmtree(beside, ignore_errors=True)


def _copy_code(source: Path, out: Path, settings: BundleSettings) -> None:
    """The files that the bundle's own code and its stages need; weights, settings and overlays are written anew."""
    needed = {name for stage in settings.preprocess for name in stage.files}
    own = {_TABLE, settings.weights} | ({settings.strip.overlays} if settings.strip else set())
    for file in source.rglob("*"):
        name = file.relative_to(source)
        if not file.is_file() or str(name) in own or "__pycache__" in name.parts or name.parts[0].startswith("."):
            continue
        # How the sick one was made, and overlays of an earlier calibration.
        if str(name) not in needed and (file.suffix == ".md" or _OVERLAYS.fullmatch(str(name))):
            continue
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _calibrate(out: Path, source: Path, settings: BundleSettings, clean: LabelledPictures) -> str:
    frr = settings.strip.frr if settings.strip else 0.01
    try:
        strip = calibrate_bundle(out, clean, frr=frr, device=torch.device("cpu"))
    except ConfigError as error:
        if settings.strip is None:
            return f"STRIP is not calibrated, as in the sick bundle: {error}"
        shutil.copyfile(source / settings.strip.overlays, out / settings.strip.overlays)
        kept = settings.strip.model_copy(update={"dropped": []})
        with (out / _TABLE).open("a", encoding="utf-8") as table:
            table.write("\n" + strip_toml(kept))
        return f"STRIP's overlays and threshold ({kept.threshold_bits} bits) are the sick bundle's: {error}"
    return (
        f"STRIP is calibrated anew for the cured network: suspect below {strip.threshold_bits} bits (FRR {strip.frr})"
    )
