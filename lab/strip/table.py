"""Calibrate STRIP for a bundle folder, and write the `strip` table into its `model.toml`."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor

from lab.data import LabelledPictures
from lab.strip.calibrate import (
    calibrated,
    clamps,
    clean_verdicts,
    given_at,
    overlay_choice,
    overlay_frames,
    overlay_images,
)
from lab.strip.combined import combined as combined_table
from lab.strip.combined import fit
from lab.strip.limits import Limits, limits_of, passes_of
from lab.strip.typicality import write_features
from processors.bundle import (
    BundleSettings,
    DroppedStripThreshold,
    StripSettings,
    StripThreshold,
    load_bundle,
    read_settings,
)
from processors.pipeline import Pipeline
from schemas.errors import BundleError, ConfigError
from schemas.runtime.atomic_file import replacing

OVERLAYS_FILE: Final = "overlays.npy"
_HEADER: Final = re.compile(r"\s*\[")


def calibrate_bundle(
    folder: Path,
    pictures: LabelledPictures,
    *,
    frr: float,
    dropped_per_block: int = 0,
    combined: bool = False,
    device: torch.device,
    advance: Callable[[int], object] = lambda count: None,
    priced: Callable[[int, Limits], object] = lambda dropped, limits: None,
    vouched: bool = False,
) -> StripSettings:
    """Choose overlays among clean `pictures`, set the threshold of whole frames, and write both into the bundle.

    With `dropped_per_block` above 0, the threshold of frames with this drop is set instead, for the bundle's overlays.
    A bundle without overlays is calibrated for whole frames first. New overlays invalidate the thresholds of dropped
    frames, whose tables are removed. `combined` adds all other statistics that the network allows on whole frames, and
    the threshold of the p-value. `priced` receives the cost of stopping early, by pixels dropped per block. `vouched`
    is passed to `load_bundle`. Raises ConfigError for too few pictures or a class without one, and BundleError for the
    bundle.
    """
    if not 0 < frr < 1:
        raise ConfigError(f"false rejection rate: expected more than 0 and less than 1, got {frr}")
    bundle = load_bundle(folder, device, vouched=vouched)
    pipeline = Pipeline(bundle)
    strip, overlays = bundle.settings.strip, bundle.overlays
    if strip is None or overlays is None or not dropped_per_block:
        chosen = overlay_choice(pictures.labels, bundle.settings.classes, frr)
        images = overlay_images(pipeline, pictures.take(chosen))
        overlays = overlay_frames(images, device)
        clamped = clamps(overlays)
        whole, limits = calibrated(clean_verdicts(pipeline, overlays, pictures, clamped, 0, advance), frr)
        priced(0, limits)
        strip = StripSettings(**whole.model_dump(), overlays=OVERLAYS_FILE, clamped=clamped)
        if combined:
            settings = bundle.settings.model_copy(update={"strip": strip})
            live = Pipeline(replace(bundle, settings=settings, overlays=overlays))
            strip = _with_combined(folder, strip, live, pictures, chosen, frr, advance)
        strip = strip.model_copy(update={"overlays": write_overlays(folder, images)})
        write_strip_table(folder, strip)
    if dropped_per_block:
        strip = _with_dropped(strip, pipeline, overlays, pictures, frr, dropped_per_block, advance, priced)
        write_strip_table(folder, strip)
    return strip


def _with_combined(
    folder: Path,
    strip: StripSettings,
    pipeline: Pipeline,
    pictures: LabelledPictures,
    overlays: NDArray[np.intp],
    frr: float,
    advance: Callable[[int], object],
) -> StripSettings:
    """Return `strip` with the p-value of all statistics. Their thresholds come first: a refusal writes nothing."""
    found = fit(pipeline, pictures, overlays, advance)
    table, features = combined_table(found.known, frr, found.norms), found.statistics.features
    usual = None if features is None else write_features(folder, features)
    return strip.model_copy(update={"typicality": usual, "combined": table})


def _with_dropped(
    strip: StripSettings,
    pipeline: Pipeline,
    overlays: Tensor,
    pictures: LabelledPictures,
    frr: float,
    dropped_per_block: int,
    advance: Callable[[int], object],
    priced: Callable[[int, Limits], object],
) -> StripSettings:
    wanted = len(overlays) + round(1 / frr)
    if len(pictures) < wanted:
        raise ConfigError(f"clean pictures: expected at least {wanted}, got {len(pictures)}")
    verdicts = clean_verdicts(pipeline, overlays, pictures, strip.clamped, dropped_per_block, advance)
    found, limits = calibrated(verdicts, frr)
    priced(dropped_per_block, limits)
    others = [each for each in strip.dropped if each.dropped_per_block != dropped_per_block]
    table = DroppedStripThreshold(**found.model_dump(), dropped_per_block=dropped_per_block)
    return strip.model_copy(update={"dropped": sorted([*others, table], key=lambda each: each.dropped_per_block)})


def calibrate_rounds(
    folder: Path,
    pictures: LabelledPictures,
    *,
    device: torch.device,
    advance: Callable[[int], object] = lambda count: None,
    priced: Callable[[int, Limits, float], object] = lambda dropped, limits, before: None,
) -> StripSettings:
    """Set new limits of the sequential mode, for whole and dropped frames. Overlays and thresholds stay.

    `priced` also receives the clean frames' passes `before`. Raises ConfigError for too few pictures and for a bundle
    with p-values, and BundleError for one without a strip table.
    """
    bundle = load_bundle(folder, device)
    pipeline = Pipeline(bundle)
    strip, overlays = bundle.settings.strip, bundle.overlays
    if strip is None or overlays is None:
        raise BundleError(f"{folder}: expected a strip table whose limits can be replaced, got none")
    if strip.combined is not None:
        raise ConfigError(
            "--rounds-only: expected a bundle that STRIP alone judges, because p-values depend on the limits; got one "
            "with strip.combined. Calibrate with --combined instead."
        )
    clamped = strip.clamped

    def limits_for(table: StripThreshold, dropped: int) -> Limits:
        usual = torch.tensor(table.usual_odds_bits) if table.usual_odds_bits else None
        given = given_at(pipeline, overlays, pictures, clamped, table, dropped, advance)
        limits = limits_of(given, table.statistic, usual, table.threshold_bits)
        before = passes_of(given, table, usual)
        priced(dropped, limits, before)
        return limits

    dropped = []
    for each in strip.dropped:
        limits = limits_for(each, each.dropped_per_block)
        dropped.append(each.model_copy(update=limits.fields()))
    strip = strip.model_copy(update={**limits_for(strip, 0).fields(), "dropped": dropped})
    write_strip_table(folder, strip)
    return strip


def write_strip_table(folder: Path, strip: StripSettings) -> None:
    """Write `strip` into the bundle's `model.toml` as `write_table` does, and delete the files of the old table."""
    before = write_table(folder, "strip", strip, strip_toml(strip)).strip
    if before is not None:
        for name in before.files - strip.files:
            (folder / name).unlink(missing_ok=True)


def write_table(folder: Path, name: Literal["strip", "drift"], table: BaseModel, text: str) -> BundleSettings:
    """Replace a table of a bundle's `model.toml` atomically, keep all else in it, and return the settings before.

    `text` is the table as TOML. Raises BundleError if the old one has a form that cannot be replaced.
    """
    path = folder / "model.toml"
    before = read_settings(folder)
    text = _without(name, path.read_text(encoding="utf-8")).rstrip() + "\n\n" + text
    try:
        after = BundleSettings.model_validate(tomllib.loads(text))
    except ValueError:
        after = None
    if after != before.model_copy(update={name: table}):
        raise BundleError(
            f"{path}: expected the {name} settings in separate tables, such as [{name}], got another form. Write "
            "them so."
        )
    replace_file(path, text.encode())
    return before


def strip_toml(strip: StripSettings) -> str:
    """Return the `strip` table as TOML."""
    plain = strip.model_dump(exclude={"dropped", "combined", "typicality"}, exclude_none=True)
    lines = ["[strip]", *_lines(plain, first="overlays")]
    if strip.combined is not None:
        table = strip.combined.model_dump(exclude_none=True)
        tails = {name: each for name, each in table.items() if isinstance(each, dict)}
        numbers = {name: each for name, each in table.items() if name not in tails}
        lines += ["", "[strip.combined]", *_lines(numbers, first="threshold")]
        for name, tail in tails.items():
            lines += ["", f"[strip.combined.{name}]", *_lines(tail, first="quantiles")]
    if strip.typicality is not None:
        lines += ["", "[strip.typicality]", *_lines(strip.typicality.model_dump(), first="features")]
    for each in strip.dropped:
        lines += ["", "[[strip.dropped]]", *_lines(each.model_dump(exclude_none=True), first="dropped_per_block")]
    return "\n".join(lines) + "\n"


def _lines(table: dict[str, object], first: str) -> list[str]:
    # Strings, numbers and lists of numbers have the same form in JSON and in TOML.
    ordered = {first: table[first], **table}
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in ordered.items() if value != []]


def _without(name: str, text: str) -> str:
    own = re.compile(rf"""\s*\[{{1,2}}\s*["']?{name}["']?\s*[.\]]""")
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if _HEADER.match(line):
            inside = own.match(line) is not None
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def write_overlays(folder: Path, images: NDArray[np.uint8]) -> str:
    """Write overlays under a new name, which the table contains only after this. Return the name."""
    content = io.BytesIO()
    np.save(content, images)
    data = content.getvalue()
    path = folder / OVERLAYS_FILE
    if path.exists() and path.read_bytes() != data:
        path = folder / f"overlays-{hashlib.sha256(data).hexdigest()[:8]}.npy"
    replace_file(path, data)
    return path.name


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: a concurrent reader gets the old file or the new one."""
    try:
        with replacing(path) as fresh:
            fresh.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path}: expected a writable file, got: {error.strerror}") from None
