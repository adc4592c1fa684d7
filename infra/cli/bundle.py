"""`pointillist bundle …`: a user's own network, from a file to the model that the processors serve."""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bundles import MADE
from infra.cli import app
from infra.cli.bundle_options import NetworkOptions
from infra.cli.code import AllowCode
from infra.cli.model import OtherClasses
from infra.cli.model import publish as publish_model
from infra.cli.shared_options import with_shared_options
from infra.cli.terminal import Json, print_json, print_line, print_skipped
from schemas.errors import ConfigError
from schemas.limits import MAX_DROP_RATIO

if TYPE_CHECKING:
    from infra.bundling.bundle_request import Summary
    from infra.bundling.check import CheckResult
    from lab.statistics import Interval

bundle_app = typer.Typer(help="Model bundles of your own networks.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

DOUBTED = 1
"""Exit status of a finished command whose pictures contradict the description."""


@bundle_app.command()
@with_shared_options
def create(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to create, with model.toml, the network and STRIP's overlays. Required, except with "
            "--imagenet: then the default is the folder in which `up` finds the bundle."
        ),
    ] = None,
    *,
    network: NetworkOptions,
    most_seconds: Annotated[
        float, typer.Option(help="Maximum seconds for reading and trying the network, including downloads.", min=1)
    ] = 600.0,
    most_memory: Annotated[
        float, typer.Option(help="Maximum memory for reading and trying the network, in GiB.", min=0.1)
    ] = 8.0,
    publish: Annotated[
        Path | None, typer.Option(help="State folder of a running system, to which the bundle is then published.")
    ] = None,
    other_classes: OtherClasses = False,
    up: Annotated[
        bool, typer.Option("--up", help="Then run `up` with the bundle. Options of `up` follow after --.")
    ] = False,
    accept_doubts: Annotated[
        bool, typer.Option("--accept-doubts", help="Publish or run the bundle in spite of warnings.")
    ] = False,
    allow_code: AllowCode = False,
    options: Annotated[list[str] | None, typer.Argument(help="With --up: options of `up`, after --.")] = None,
) -> None:
    """Create a bundle from a network of your own, without writing a file by hand.

    Exit status 1 when the bundle was created but your pictures contradict its description, 2 when it was not created.
    """
    from infra.bundling.folder import replacing_folder
    from infra.bundling.trial import Limits, create_within

    wanted = network.to_request()
    if out is None and not network.imagenet:
        raise ConfigError("--out is missing: expected the folder to make. Give --out FOLDER.")
    if options and not up:
        raise ConfigError(f"{options[0]}: expected options of `up` after --up, got no --up. Give --up.")
    if publish is not None and up:
        raise ConfigError("bundle: expected --publish or --up, got both. Remove one.")
    if other_classes and publish is None:
        raise ConfigError("--other-classes: expected --publish with it, got none. Give --publish STATE.")
    limits = Limits(most_seconds, most_memory)
    with nullcontext(out) if out is not None else replacing_folder(MADE / "imagenet") as fresh:
        made = create_within(limits, wanted, fresh, partial(print_line, err=True), print_skipped)
    out = MADE / "imagenet" if out is None else out
    _print_summary(made, out)
    if network.imagenet:
        _cache_choice(out)
    if made.doubts and not accept_doubts:
        if publish is not None or up:
            print_line("not served, for what is doubtful: --accept-doubts serves it all the same", err=True)
        raise typer.Exit(DOUBTED)
    if publish is not None:
        publish_model(bundle=out, state=publish, other_classes=other_classes)
    if up:
        _run_up(out, options or [])


@bundle_app.command()
def calibrate(
    folder: Annotated[
        str, typer.Argument(help="A folder with model.toml, or the name of a bundle made on this machine.")
    ],
    images: Annotated[
        Path,
        typer.Option(
            help="Folder of clean pictures as the cameras will see them, best in a sub-folder for each class."
        ),
    ],
    strip_seconds: Annotated[
        float, typer.Option(help="Approximate seconds for the calibration of STRIP; 0 leaves STRIP out.", min=0)
    ] = 6.0,
    unsure: Annotated[
        bool,
        typer.Option(
            "--unsure", help="Also set the temperature, and the confidence below which a verdict reads `unsure`."
        ),
    ] = False,
    allow_code: AllowCode = False,
) -> None:
    """Write STRIP's table and the drift reference of an existing bundle, from pictures of its cameras.

    Exit status 1 when the pictures contradict the bundle's description.
    """
    import torch

    from infra.bundling.create import calibrate as run
    from infra.cli.lab.shared import own_bundle_folder
    from processors.bundle import load_bundle

    place = own_bundle_folder(folder)
    bundle = load_bundle(place, torch.device("cpu"))
    made = run(
        place, bundle, images, strip_seconds, partial(print_line, err=True), print_skipped,
        origin=bundle.settings.format, unsure=unsure,
    )  # fmt: skip
    _print_summary(made.summary, place)
    if made.doubts:
        raise typer.Exit(DOUBTED)


@bundle_app.command()
def check(
    folder: Annotated[
        str, typer.Argument(help="A folder with model.toml, or the name of a bundle: shipped, or made here.")
    ],
    images: Annotated[
        Path, typer.Option(help="Folder of pictures as the cameras will see them, best in a sub-folder for each class.")
    ],
    drop: Annotated[
        float, typer.Option("--drop-ratio", help="Share of the pixels that are dropped.", min=0, max=MAX_DROP_RATIO)
    ] = 0.25,
    most: Annotated[int, typer.Option(help="Maximum number of pictures.", min=1)] = 200,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="PNG file for samples of the pictures: as filmed, as sent, reconstructed, and as the network sees "
            "them."
        ),
    ] = None,
    json: Json = False,
    allow_code: AllowCode = False,
) -> None:
    """Try a bundle on pictures: speed, accuracy, and the effect of drop and reconstruction.

    Exit status 1 when the pictures contradict the bundle's description.
    """
    from infra.bundling.check import check as run
    from infra.bundling.contact_sheet import write_sheet
    from infra.cli.lab.shared import bundle_folder
    from infra.cli.progress import progress_bar

    with progress_bar("check", most) as advance:
        found = run(bundle_folder(folder), images, drop, most, print_skipped, advance)
    if json:
        print_json(found.as_dict())
    else:
        _print_checked(found, drop)
    if sheet is not None:  # last: a file that cannot be written costs no results
        write_sheet(found.shown, sheet)
        if not json:
            print_line(f"pictures: {sheet}")
    raise typer.Exit(DOUBTED if found.judged and found.judged.doubts else 0)


def _print_checked(found: CheckResult, drop: float) -> None:
    wanted = found.bundle.settings.input
    size = f"{wanted.channels}×{wanted.height}×{wanted.width}"
    print_line(f"{found.bundle.model_id}: {size}, {len(found.bundle.settings.classes)} classes")
    times = f"{found.one_ms:.2f} ms for a picture, {found.batch_ms:.2f} ms in a batch of 32"
    print_line(f"loaded in {found.load_s:.1f} s; by {found.runs} {times}")
    if found.judged is not None and found.accuracy_dropped is not None:
        print_line(
            f"right: {_shown(found.judged.accuracy)} whole, {_shown(found.accuracy_dropped)} after {drop:.0%} dropped"
        )
    print_line(
        f"same class after {drop:.0%} dropped and rebuilt: {_shown(found.agreement)} of {found.pictures} pictures"
    )
    print_line("most often: " + ", ".join(f"{name} {count}" for name, count in found.top))
    if found.bundle.settings.strip is None:
        print_line(
            "note: no [strip] table: no frame is checked for triggers; `pointillist bundle calibrate DIR --images "
            "PICTURES` makes one"
        )
    if wanted.channels == 1:
        print_line("note: the network takes grey pictures: colours become luma")
    for doubt in found.judged.doubts if found.judged else ():
        print_line(f"doubt: {doubt}")


def _print_summary(made: Summary, out: Path) -> None:
    size = f"{made.channels}×{made.height}×{made.width}"
    print_line(f"{made.model_id} in {out}: {made.origin}, {size}, {made.classes} classes")
    if made.accuracy is not None:
        print_line(f"right on your pictures: {_shown(made.accuracy)}")
    if made.unsure is not None:
        print_line(f"unsure: {made.unsure}")
    if made.strip is not None:
        print_line(f"STRIP: {made.strip}")
    for note in made.notes:
        print_line(f"note: {note}")
    for doubt in made.doubts:
        print_line(f"doubt: {doubt}")
    allow = "--allow-code " if made.format == "torchscript" else ""
    print_line(f"next: pointillist up --source URL {allow}--bundle {shlex.quote(str(out))}")


def _shown(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _cache_choice(folder: Path) -> None:
    """Load the bundle once as a processor of `up` does, so that the choice of backend is in its cache.

    Raises BundleError if the bundle does not load.
    """
    import asyncio

    from prometheus_client import CollectorRegistry

    from infra.local.user_folders import backend_cache
    from processors.device.loaded_model import load_model
    from processors.metrics import ProcessorMetrics
    from processors.settings import ProcessorSettings

    settings = ProcessorSettings(kafka="none:1", bundle=folder, backend_cache=backend_cache())
    asyncio.run(load_model(settings, ProcessorMetrics(CollectorRegistry()), folder)).close()


def _run_up(folder: Path, options: list[str]) -> None:
    """Become `pointillist up`: the environment passes on the permission to run code."""
    from infra.cli.passwords import hidden
    from infra.local.process import COMMAND

    shown, variables = hidden(options, os.environ)
    os.execve(COMMAND[0], [*COMMAND, "up", "--bundle", str(folder), *shown], os.environ | variables)
