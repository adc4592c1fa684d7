"""`pointillist teach …`: a classifier of your own classes, from a few dozen labelled pictures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bundles import GENERAL, MADE
from infra.cli import app
from infra.cli.access import DEFAULT_STATE, existing_layout
from infra.cli.terminal import print_line, print_skipped
from schemas.errors import ConfigError
from schemas.limits import MAX_DROP_RATIO

if TYPE_CHECKING:
    from consumers.console.data.labelled_frames import LabelledFrames
    from consumers.console.data.store import Store
    from lab.teach.report import Held
    from lab.teach.train import TaughtNetwork
    from processors.bundle import Bundle

StateFolder = Annotated[Path, typer.Option("--state", help="State folder of the system.")]
StoreUrl = Annotated[
    str,
    typer.Option(
        help="SQLAlchemy URL of the console's database. Default: that of `up` on the state folder, SQLite in it unless "
        "`console.store` is set."
    ),
]
KeptFiles = Annotated[
    str,
    typer.Option(
        "--kept-files",
        "--quarantine",
        help="Folder or URL of the console's own files. Default: those of `up` on the state folder, in its quarantine "
        "unless `console.kept_files` is set.",
    ),
]

teach_app = typer.Typer(
    help="Train a classifier of your own classes from a few dozen labelled pictures.", no_args_is_help=True
)
app.add_typer(teach_app, name="teach")


@teach_app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Folder with one sub-folder of pictures for each class.")],
    name: Annotated[str, typer.Option(help="Name of the bundle, shown in verdicts and used by `up --bundle`.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to create. Default: the folder in which `up --bundle NAME` finds the bundle."),
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle, shown in verdicts.")] = "1",
    drop_ratio: Annotated[
        float, typer.Option("--drop-ratio", help="Share of the pixels that the fleet drops.", min=0, max=MAX_DROP_RATIO)
    ] = 0.25,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough", help="Also train the upper blocks of the network, not only its head. Takes minutes."
        ),
    ] = False,
    thorough_seconds: Annotated[
        float, typer.Option(help="Approximate time limit of --thorough, in seconds.", min=1)
    ] = 240.0,
    strip_seconds: Annotated[
        float, typer.Option(help="Approximate seconds for the calibration of STRIP; 0 leaves STRIP out.", min=0)
    ] = 6.0,
    base: Annotated[
        str,
        typer.Option(
            help="General network whose features are used: a folder with model.toml, or the name of a bundle."
        ),
    ] = GENERAL,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", min=0, max=2**32 - 1)] = 0,
    json: Annotated[Path | None, typer.Option("--json", help="JSON file for the report.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier bundle of this name.")] = False,
    progress: Annotated[bool, typer.Option("--progress", hidden=True, help="Print progress as JSON.")] = False,
) -> None:
    """Train a classifier on labelled pictures, after the same drop and reconstruction as live frames, and write a
    bundle.

    Cross-validation on your pictures chooses the features, calibrates the confidence and gives the figures, which are
    therefore somewhat too good. For unbiased figures, run `pointillist bundle check` on other pictures.
    """
    from infra.cli.lab.shared import lab_extra, require_writable, write_json
    from infra.cli.progress import PhaseBars, PhaseLines

    with lab_extra():
        from infra.bundling.folder import replacing_folder
        from infra.bundling.names import check_name
        from infra.bundling.taught import write_taught
        from lab.teach.labelled import read_labelled
        from lab.teach.train import TeachSettings, teach

        if json is not None:
            require_writable(json)
        check_name("--name", name)
        check_name("--version", version)
        place = _place_of(name) if out is None else out
        earlier = (place / "model.toml").is_file()
        replaced = replace and earlier
        if not replaced and place.exists() and (not place.is_dir() or any(place.iterdir())):
            got, remedy = ("an earlier bundle", "Give --replace") if earlier else ("other files", "Choose another one")
            raise ConfigError(f"{place}: expected an empty folder, got {got}. {remedy}.")
        _check_classes(folder)
        labelled = read_labelled(folder, print_skipped)
        general = _general(base)
        bars = PhaseLines(apart_s=0) if progress else PhaseBars("teach", lines=False)
        with bars.bars:
            taught = teach(general, labelled, TeachSettings(drop_ratio, thorough, thorough_seconds, seed), bars)
        with replacing_folder(place) if replaced else nullcontext(place) as made:
            bundle = write_taught(
                taught, general, labelled, made, name=name, version=version, strip_s=strip_seconds,
                print_line=print_line,
            )  # fmt: skip
    if json is not None:
        write_json(json, taught.document() | {"bundle": bundle.model_id})
    _print_report(taught)
    print_line(f"{bundle.model_id} in {place}")
    print_line(f"next: pointillist up --source URL --bundle {name if out is None else shlex.quote(str(place))}")


def _place_of(name: str) -> Path:
    """Return the folder in which `up` finds the name. Raises ConfigError if the name stands for another network."""
    from bundles import named_bundles

    place = MADE / name
    if name == GENERAL or named_bundles().get(name, place) != place:
        raise ConfigError(
            f"--name: expected another name than that of a shipped bundle or of the general network, got {name}. "
            "Choose another one, or give --out."
        )
    return place


def _check_classes(folder: Path) -> None:
    """Raise ConfigError for a sub-folder whose name no class of a bundle may have."""
    from consumers.console.data.labelled_frames import check_class

    for name in sorted(each.name for each in folder.glob("*/") if not each.name.startswith(".")):
        check_class(name)


def _general(base: str) -> Bundle:
    """Load the general network. If `imagenet` was not made yet, make it from the installed weights."""
    import tempfile

    import torch

    from bundles import named_bundles
    from infra.bundling.bundle_request import BundleRequest
    from infra.bundling.create import create
    from infra.cli.lab.shared import bundle_folder
    from processors.bundle import load_bundle

    if base != GENERAL or GENERAL in named_bundles():
        return load_bundle(bundle_folder(base), torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="pointillist-teach-") as folder:
        return create(BundleRequest("imagenet", GENERAL), Path(folder) / GENERAL).bundle


@teach_app.command(hidden=True)
def describe() -> None:
    """Answer pictures on standard input with their features, for `infra.cli.console_features`."""
    import io
    import sys

    import numpy as np
    import torch
    from PIL import Image

    from infra.cli.console_features import receive, send
    from infra.cli.lab.shared import lab_extra

    with lab_extra():
        from lab.teach.describe import Describer

        torch.set_num_threads(1)
        features = Describer(_general(GENERAL))
    while jpeg := receive(sys.stdin.buffer):
        try:
            with Image.open(io.BytesIO(jpeg)) as opened:
                picture = np.asarray(opened.convert("RGB"))
            found = features(picture).tobytes()
        except OSError:  # no picture that Pillow reads
            found = b""
        send(sys.stdout.buffer, found)


@teach_app.command("export")
def export_labels(
    folder: Annotated[Path, typer.Argument(help="Folder to create, with one sub-folder for each class.")],
    state: StateFolder = DEFAULT_STATE,
    store: StoreUrl = "",
    kept_files: KeptFiles = "",
) -> None:
    """Write the labelled frames of a console as pictures, with a sub-folder for each class."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: expected an empty folder, or none. Choose another folder.")
    from consumers.console.data.label_folders import export_folder

    with _labelled_frames(state, store, kept_files) as (labelled_frames, _):
        _print_counts("exported", export_folder(labelled_frames, folder))


@teach_app.command("import")
def import_labels(
    folder: Annotated[Path, typer.Argument(help="Folder with one sub-folder of pictures for each class.")],
    state: StateFolder = DEFAULT_STATE,
    store: StoreUrl = "",
    kept_files: KeptFiles = "",
) -> None:
    """Store pictures as labelled frames of a console; the name of a sub-folder is the label."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder with one sub-folder for each class. Correct the path.")
    from consumers.console.access.owner import owner_name
    from consumers.console.data.label_folders import import_folder
    from infra.cli.lab.shared import lab_extra

    with lab_extra(), _labelled_frames(state, store, kept_files) as (labelled_frames, opened):
        from lab.restoration.psnr import read_picture

        imported = import_folder(labelled_frames, folder, owner_name(), read_picture)
        if total := sum(imported.counts.values()):
            opened.note(owner_name(), "label", f"{total} frames", f"imported: {', '.join(imported.counts)}", "done", "")
    if not imported.counts:
        raise ConfigError(f"{folder}: expected one sub-folder of pictures for each class, got none. Correct the path.")
    _print_counts("imported", imported.counts)
    if imported.skipped:
        print_line(f"skipped {imported.skipped} without the ending of a picture, such as `.jpg`")


@contextmanager
def _labelled_frames(folder: Path, store: str, kept_files: str) -> Iterator[tuple[LabelledFrames, Store]]:
    """Open the labelled frames of a console, and its database."""
    from consumers.console.data.labelled_frames import LabelledFrames
    from infra.cli.roles import role_keys
    from infra.settings.variable import resolve
    from infra.state_folder import Layout
    from infra.state_folder.console_database import opened_console_database

    # A mistyped folder would get a database of its own, and the labels with it.
    layout = Layout(folder.resolve()) if store and kept_files else existing_layout(folder)
    with opened_console_database(resolve(store) or layout.console_store) as opened:
        keys = role_keys(folder, "console")
        yield LabelledFrames(opened.engine, kept_files or layout.kept_files, keys.previews), opened


def _print_counts(done: str, counts: dict[str, int]) -> None:
    print_line(f"{done} {sum(counts.values())} labelled pictures")
    for name, count in counts.items():
        print_line(f"{name}: {count}")


def _print_report(taught: TaughtNetwork) -> None:
    held: Held = taught.held
    print_line(f"head: {taught.choice.words}{'; upper blocks trained' if taught.thorough else ''}")
    right = held.right
    print_line(
        f"right on {len(held.labels)} held-out labels: {right.value:.1%} ({right.low:.1%} to {right.high:.1%}); "
        f"{1 - held.sure.mean():.1%} unsure below {held.unsure_below:g}"
    )
    print_line(
        "the same labels chose the settings, so these shares are somewhat too good; `pointillist bundle check` judges "
        "on other pictures"
    )
    wide = max(len(name) for name in (*held.classes, "unsure"))
    print_line(" " * wide + " | " + " ".join(f"{name:>{max(6, len(name))}}" for name in (*held.classes, "unsure")))
    for name, row in zip(held.classes, held.confusion, strict=True):
        cells = (f"{count:>{max(6, len(of))}}" for count, of in zip(row, (*held.classes, "unsure"), strict=True))
        print_line(f"{name:>{wide}} | " + " ".join(cells))
    for file, label, verdict, own in held.worst():
        print_line(f"look at {file}: reads {verdict}, {label} {own:.0%}")
    for line in held.advice():
        print_line(line)
    print_line(f"trained in {taught.seconds:.0f} s")
