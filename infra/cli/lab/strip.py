"""`pointillist lab calibrate` and `lab strip`: STRIP's thresholds for any bundle, and their error rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Clean,
    Device,
    Images,
    ImagesOfEach,
    JsonFile,
    Poisoned,
    bundle_folder,
    lab_app,
    lab_extra,
    own_bundle_folder,
    print_figures,
    read_npz,
    read_sample,
    require_writable,
    torch_device,
    write_json,
)
from infra.cli.progress import progress_bar
from infra.cli.terminal import print_line
from schemas.errors import ConfigError
from schemas.limits import MAX_DROP_RATIO

if TYPE_CHECKING:
    from torch import Tensor

    from processors.bundle import StripSettings

OwnBundle = Annotated[
    str,
    typer.Option(
        "--bundle", help="Model bundle: a folder with model.toml, or the name of a bundle made on this machine."
    ),
]
StripDrop = Annotated[
    float,
    typer.Option(
        "--drop-ratio",
        help="Share of the pixels that are dropped, 0 to 0.875; 0 is whole frames, as in probes.",
        min=0,
        max=MAX_DROP_RATIO,
    ),
]


@lab_app.command()
def calibrate(
    bundle: OwnBundle,
    clean: Clean,
    frr: Annotated[
        float,
        typer.Option(
            help="Target of the calibration: false rejection rate, the share of clean frames that are flagged."
        ),
    ] = 0.01,
    drop: StripDrop = 0.0,
    rounds_only: Annotated[
        bool,
        typer.Option(help="Set only the limits of the sequential mode, for all drop ratios, and keep the thresholds."),
    ] = False,
    combined: Annotated[
        bool,
        typer.Option(
            help="Combine STRIP on whole frames with drop disagreement and, if the network allows them, "
            "typicality, layer disagreement and scaled batch norms into one p-value. It finds triggers that "
            "STRIP misses; a probe costs up to eighteen more passes. With 1,000 pictures, about nine "
            "calibrations of ten keep --frr 0.01; with fewer pictures, fewer do."
        ),
    ] = False,
    images: Images = None,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Write STRIP's overlays and thresholds into a bundle, from a few hundred clean pictures of all classes.

    Calibrate whole frames first, then frames with dropped pixels, for one --drop-ratio at a time. With --rounds-only,
    --frr and --drop-ratio have no effect.
    """
    with lab_extra():
        from lab.strip.blind import check_threshold, restoring_table
        from lab.strip.calibrate import KEPT
        from lab.strip.table import calibrate_bundle, calibrate_rounds
        from processors.bundle import load_bundle, read_settings
        from schemas.limits import dropped_per_block

        folder = own_bundle_folder(bundle)
        settings = read_settings(folder)
        if combined and (rounds_only or (drop and settings.strip is not None)):
            raise ConfigError(
                "--combined: expected a calibration of whole frames, got --rounds-only or --drop-ratio. Calibrate "
                "whole frames first."
            )
        classes = len(settings.classes)
        mixed = combined or images is not None
        pictures = read_sample(clean, classes, images) if mixed else read_npz(clean, classes)
        dropped = dropped_per_block(drop)
        prices: dict[int, str] = {}
        if rounds_only:
            if settings.strip is not None:
                overlays = load_bundle(folder, torch_device(device)).overlays
                _require_pictures(len(pictures), settings.strip, overlays)
            tables = 1 + len(settings.strip.dropped) if settings.strip else 1
            with progress_bar("calibrate", tables * min(len(pictures), KEPT)) as advance:
                strip = calibrate_rounds(
                    folder, pictures, device=torch_device(device), advance=advance,
                    priced=lambda dropped, limits, before: prices.update(
                        {dropped: f"{limits.describe()}; before: {before:.1f} passes"}
                    ),
                )  # fmt: skip
        else:
            runs = 1 + 4 * combined + (bool(dropped) and settings.strip is None)
            with restoring_table(folder), progress_bar("calibrate", runs * len(pictures)) as advance:
                strip = calibrate_bundle(
                    folder, pictures, frr=frr, dropped_per_block=dropped, combined=combined,
                    device=torch_device(device), advance=advance,
                    priced=lambda dropped, limits: prices.update({dropped: limits.describe()}),
                )  # fmt: skip
                if combined:
                    check_threshold(strip)
    lines = [f"whole frames: suspect below {strip.threshold_bits} bits"]
    if strip.combined is not None:
        names = ", ".join(each.replace("_", " ") for each in strip.combined.tails)
        lines.append(f"whole frames: suspect below a p-value of {strip.combined.threshold:g}, by {names}")
    lines += [f"{each.dropped_per_block} of 64 dropped: below {each.threshold_bits} bits" for each in strip.dropped]
    for count, price in prices.items():
        lines.append(f"{f'{count} of 64 dropped' if count else 'whole frames'}, {price}")
    for line in lines:
        print_line(line)


def _require_pictures(count: int, strip: StripSettings, overlays: Tensor | None) -> None:
    """Raise ConfigError for fewer pictures than the overlays and the false rejection rates of a bundle need."""
    if overlays is None or strip.combined is not None:  # `calibrate_rounds` refuses such a bundle
        return
    others = math.ceil(1 / min(each.frr for each in (strip, *strip.dropped)))
    if count < len(overlays) + others:
        raise ConfigError(
            f"clean pictures: expected at least {len(overlays) + others}, {len(overlays)} that may be overlays and "
            f"{others} more for the false rejection rate of the bundle, got {count}. Give more."
        )


@lab_app.command()
def strip(
    bundle: BundleOption,
    clean: Clean,
    poisoned: Poisoned,
    json: JsonFile,
    drop: StripDrop = 0.0,
    sequential: Annotated[
        bool, typer.Option(help="Stop the passes of a frame early when the bundle's limits accept it as clean.")
    ] = False,
    images: ImagesOfEach = None,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Measure STRIP's errors on clean and poisoned pictures, with the bundle's threshold.

    frr: share of clean frames that are flagged. far: share of poisoned frames that are not flagged. far_effective: the
    same share among poisoned frames that reach the target class. The target class is the one that most poisoned
    pictures of other classes get. attack_success: share of the poisoned pictures of other classes with the target class
    as verdict. mean_passes covers only clean pictures, seconds all pictures. live_statistic is the statistic by which a
    processor judges probes, which are whole frames: entropy (STRIP's) or p-value (with other statistics). The shares
    are always those of STRIP alone.
    """
    with lab_extra():
        import torch

        from lab.strip.measure import check, strip_figures, threshold_for
        from processors.bundle import load_bundle
        from processors.pipeline import Pipeline
        from schemas.limits import dropped_per_block

        require_writable(json)
        network = load_bundle(bundle_folder(bundle), torch_device(device))
        pipeline = Pipeline(network)
        dropped = dropped_per_block(drop)
        threshold = threshold_for(pipeline, dropped, drop)
        classes = len(network.settings.classes)
        files = [read_sample(file, classes, images) for file in (clean, poisoned)]
        with progress_bar("strip", sum(map(len, files))) as advance:
            found = [check(pipeline, file, dropped, sequential=sequential, advance=advance) for file in files]
        table = network.settings.strip
        together = table.combined if table is not None else None
        figures: dict[str, Any] = strip_figures(*found) | {
            "threshold_bits": threshold.threshold_bits,
            "live_statistic": "entropy" if together is None else "p-value",
        }
    settings = {
        "bundle": network.model_id, "clean": str(clean), "poisoned": str(poisoned), "drop": drop,
        "sequential": sequential, "asked_frr": threshold.frr, "device": str(network.device),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    write_json(json, figures | {"settings": settings})
    print_figures(network.model_id, figures)
    if together is not None:
        names = ", ".join(each.replace("_", " ") for each in together.tails)
        print_line(
            "These are the shares of STRIP alone. In a processor, a probe of this bundle is suspect below a p-value of "
            f"{together.threshold:g}, by {names}.",
            err=True,
        )
