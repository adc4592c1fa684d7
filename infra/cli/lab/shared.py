"""Options and checks that the commands of `pointillist lab` share."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from infra.cli import app, needs_extra
from infra.cli.terminal import Console
from schemas.errors import ConfigError
from schemas.limits import MAX_DROP_RATIO

if TYPE_CHECKING:
    import torch

    from lab.attacks import Attack
    from lab.data import LabelledPictures

lab_app = typer.Typer(
    help="Offline work on networks: attack, harden, repair, calibrate, certify.", no_args_is_help=True
)
app.add_typer(lab_app, name="lab")

BundleOption = Annotated[
    str, typer.Option("--bundle", help="Model bundle: a folder with model.toml, or the name of a shipped one.")
]
Data = Annotated[Path, typer.Option(help="npz with images (N, H, W, C) or (N, H, W) uint8 and labels (N,).")]
Images = Annotated[int | None, typer.Option(help="Number of pictures, drawn at random. Default: all.", min=1)]
Clean = Annotated[
    Path, typer.Option(help="npz with clean images (N, H, W, C) or (N, H, W) uint8 and labels (N,), not trained on.")
]
Poisoned = Annotated[Path, typer.Option(help="npz like --clean, with the trigger; labels are the true classes.")]
ImagesOfEach = Annotated[
    int | None, typer.Option(help="Number of pictures of each file, drawn at random. Default: all.", min=1)
]
DropRatio = Annotated[
    float,
    typer.Option("--drop-ratio", help="Share of the pixels that are dropped, 0 to 0.875.", min=0, max=MAX_DROP_RATIO),
]
Device = Annotated[str, typer.Option(help="Device of the networks: auto (CUDA if available), cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Seed of masks and attacks.", min=0, max=2**32 - 1)]
JsonFile = Annotated[Path, typer.Option("--json", help="JSON file for the figures.")]

_LEAST_EPS: Final = 1 / 510
"""Half a level of 8 bits."""
_BY_LEVELS: Final = ("fgsm", "ifgsm", "pgd", "autoattack", "square", "hopskipjump")
"""Attacks whose bound is L∞."""


_FOLDERS: Final = ("--runs", "--results")
lab_extra = partial(needs_extra, "lab")
"""The guard of commands that need libraries of the lab."""


def shown_command() -> str:
    """Return the command as typed, without the folder of the program and without `--runs` and `--results`.

    Those options name folders of one machine, and the defaults give the same figures.
    """
    words = iter(sys.argv[1:])
    shown = ["pointillist"]
    for word in words:
        if word in _FOLDERS:
            next(words, None)
        elif word.partition("=")[0] not in _FOLDERS:
            shown.append(word)
    return shlex.join(shown)


def chosen(value: str, *known: str, option: str) -> Any:
    """Return the value when it is one of `known`, else raise ConfigError."""
    if value not in known:
        raise ConfigError(f"{option}: expected {' or '.join(known)}, got {value!r}. Correct it.")
    return value


def torch_device(wanted: str) -> torch.device:
    """Return the device that an option names."""
    from processors.device.batch_executor import choose_device

    name: Literal["auto", "cpu", "cuda"] = chosen(wanted, "auto", "cpu", "cuda", option="--device")
    return choose_device(name)


@contextmanager
def file_of_pictures(file: Path) -> Iterator[None]:
    """Raise ConfigError with a remedy for a file of arrays that is damaged, unsuitable or larger than the memory."""
    remedy = "Correct the path, or copy or write the file again."
    try:
        yield
    except MemoryError as error:
        raise ConfigError(
            f"{file}: expected arrays that fit into the memory, got larger ones: {error}. Give fewer pictures."
        ) from None
    # From numpy and zipfile: a damaged header, a password or an unknown compression, and a member that is no array.
    except (TokenError, RuntimeError, AttributeError) as error:
        detail = f" ({error})" if isinstance(error, RuntimeError) else ""
        raise ConfigError(
            f"{file}: expected an npz of plain arrays, got a damaged file or another one{detail}. {remedy}"
        ) from None
    except ConfigError as error:
        if not str(error).startswith(f"{file}: "):
            raise
        raise ConfigError(f"{error}. {remedy}") from None


def read_npz(file: Path, classes: int) -> LabelledPictures:
    """Return the pictures of an npz in their order. Raises ConfigError like `read_pictures`, with a remedy."""
    from lab.data import read_pictures

    with file_of_pictures(file):
        return read_pictures(file, classes)


def read_sample(file: Path, classes: int, images: int | None) -> LabelledPictures:
    """Return `images` pictures of an npz, or all, in a random order that is the same in each call.

    The first pictures of a file that is sorted by class have one class. Raises ConfigError like `read_npz`.
    """
    from lab.data import read_pictures
    from lab.strip.order import shuffled

    with file_of_pictures(file):
        return shuffled(read_pictures(file, classes)).first(images)


def bundle_folder(given: str) -> Path:
    """Return the checked folder of a bundle, which is given by its folder or its name. Raises BundleError."""
    from processors.bundle import shipped_bundle
    from processors.bundle.folder import check_folder

    folder = Path(given)
    if not folder.exists() and folder.name == given:
        folder = shipped_bundle(given)
    check_folder(folder)
    return folder


def own_bundle_folder(given: str) -> Path:
    """Return the folder of a bundle that a command changes. Raises ConfigError for the name of a shipped bundle."""
    from bundles import MADE

    folder = bundle_folder(given)
    if folder != Path(given) and folder.parent != MADE:
        raise ConfigError(
            f"{given}: expected a folder, or the name of a bundle made on this machine, got a shipped one, which "
            f"would change for every fleet on this machine. Copy {folder}, and give the copy."
        )
    return folder


def attack_of(name: str | None, eps: float | None, untargeted: bool) -> Attack | None:
    """Return the attack of the options; ConfigError when they contradict each other."""
    from lab.attacks import make_attack

    if name is None:
        if eps is not None or untargeted:
            raise ConfigError("--attack is missing: expected an attack for --eps or --untargeted. Give --attack NAME.")
        return None
    if eps is not None and 0 < eps < _LEAST_EPS and name in _BY_LEVELS:
        raise ConfigError(
            f"--eps: expected at least 1/510 (0.00197), got {eps:g}: attacked frames are rounded to 8 bits, and less "
            "rounds to no change. Give a larger bound."
        )
    return make_attack(name, eps)


def write_json(file: Path, document: dict[str, Any]) -> None:
    """Write `document` to the file of `--json`; ConfigError when the file cannot be written."""
    from infra.state_folder import write_report

    write_report("--json", file, document)


def require_writable(file: Path) -> None:
    """Raise ConfigError before the work when its result could not be written."""
    place = file.absolute()
    there = next(each for each in (place, *place.parents) if each.exists())
    if str(file) == "-" or file.is_dir() or not (there == place or there.is_dir()) or not os.access(there, os.W_OK):
        raise ConfigError(f"--json: expected a writable file, got {file}. Choose another file.")


def require_folder(folder: Path, option: str) -> None:
    """Make the folder of `option` before the work. Raises ConfigError if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option}: expected a writable folder, got {folder}: {error.strerror}. Choose another folder."
        ) from None


def print_figures(title: str, document: dict[str, Any]) -> None:
    """Print the numbers of a document as a table on stdout."""
    table = Table("figure", "value", title=Text(title), title_justify="left")
    for name, value in document.items():
        if isinstance(value, dict):
            continue
        table.add_row(name, Text(_shown(value)))
    Console(soft_wrap=True).print(table)


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)
