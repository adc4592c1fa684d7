"""`pointillist lab …`: offline experiments on any bundle and any pictures."""

from __future__ import annotations

import json as json_format
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from infra.cli import app, needs_extra
from infra.cli.code import AllowCode
from infra.cli.progress import progress_bar
from infra.cli.terminal import Console
from schemas.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from lab.attacks import Attack
    from lab.data import LabelledPictures

lab_app = typer.Typer(help="Offline experiments.", no_args_is_help=True)
app.add_typer(lab_app, name="lab")

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Drop = Annotated[float, typer.Option("--drop-ratio", help="Share of the pixels that are dropped, 0 to 0.875.")]
Masks = Annotated[str, typer.Option(help="Distribution of the dropped pixels: spread, as in cameras, or uniform.")]
Seed = Annotated[int, typer.Option(help="Of masks and attacks.", min=0, max=2**32 - 1)]
JsonFile = Annotated[Path, typer.Option("--json", help="Where the figures go.")]

_LEAST_EPS: Final = 1 / 510
"""Half a level of 8 bits."""
_BY_LEVELS: Final = ("fgsm", "ifgsm", "pgd", "autoattack", "square", "hopskipjump")
"""Attacks whose bound is L∞."""


lab_extra = partial(needs_extra, "lab")
"""The guard of commands that need libraries of the lab."""


def shown_command() -> str:
    """Return the command as typed, without the folder of the program."""
    return shlex.join(["pointillist", *sys.argv[1:]])


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


def read_sample(file: Path, classes: int, images: int | None) -> LabelledPictures:
    """Return `images` pictures of an npz, or all, in a random order that is the same in each call.

    The first pictures of a file that is sorted by class have one class. Raises ConfigError like `read_pictures`.
    """
    from lab.data import read_pictures
    from lab.strip.order import shuffled

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
    """Write `document`; ConfigError when the file cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json_format.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--json: expected a writable file, got {file}: {error.strerror}. Choose another file."
        ) from None


def require_writable(file: Path) -> None:
    """Raise ConfigError before the work when its result could not be written."""
    place = file.absolute()
    there = next(each for each in (place, *place.parents) if each.exists())
    if file.is_dir() or not (there == place or there.is_dir()) or not os.access(there, os.W_OK):
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
        shown = f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)
        table.add_row(name, Text(shown))
    Console(soft_wrap=True).print(table)


@lab_app.command()
def evaluate(
    bundle: Annotated[str, typer.Option(help="Model bundle: a folder with model.toml, or the name of a shipped one.")],
    data: Annotated[Path, typer.Option(help="npz with images (N, H, W, C) or (N, H, W) uint8 and labels (N,).")],
    drop: Drop,
    json: JsonFile,
    mode: Annotated[str, typer.Option(help="Reconstruction: default or paper (Algorithm 1).")] = "default",
    attack: Annotated[str | None, typer.Option(help="Attack on the bare network: fgsm, ifgsm, pgd, …")] = None,
    eps: Annotated[
        float | None, typer.Option(help="Bound of the attack on frames in [0, 1]; by default the attack's own.")
    ] = None,
    untargeted: Annotated[bool, typer.Option(help="Attack towards any wrong class, instead of a random one.")] = False,
    images: Annotated[int | None, typer.Option(help="Use only this many pictures, drawn at random.", min=1)] = None,
    masks: Masks = "spread",
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Accuracy of a network on pictures: bare, attacked, and behind the defence.

    Attacked pictures are rounded to 8 bits before the drop. Shares come with Wilson intervals of 95 %.
    """
    with lab_extra():
        import torch

        from lab.masks import check_drop_ratio
        from lab.restoration.evaluate import evaluate as run_evaluation
        from processors.bundle import load_bundle
        from processors.pipeline import Pipeline

        check_drop_ratio(drop)
        require_writable(json)
        way = chosen(mode, "default", "paper", option="--mode")
        spread = chosen(masks, "spread", "uniform", option="--masks") == "spread"
        wanted = attack_of(attack, eps, untargeted)
        network = load_bundle(bundle_folder(bundle), torch_device(device))
        pictures = read_sample(data, len(network.settings.classes), images)
        with progress_bar("evaluate", len(pictures)) as advance:
            found = run_evaluation(
                Pipeline(network, way), pictures, drop_ratio=drop, attack=wanted, targeted=not untargeted, seed=seed,
                spread=spread, advance=advance,
            )  # fmt: skip
    settings = {
        "bundle": network.model_id, "data": str(data), "drop": drop, "mode": way, "masks": masks, "seed": seed,
        "attack": None if wanted is None else wanted.name, "eps": None if wanted is None else wanted.eps,
        "targeted": None if wanted is None else not untargeted,
        "device": str(network.device), "threads": torch.get_num_threads(),
    }  # fmt: skip
    document = found.as_dict() | {"settings": settings}
    write_json(json, document)
    accuracy: Any = document["accuracy"]
    print_figures(network.model_id, {f"accuracy, {stage}": value for stage, value in accuracy.items()} | document)


@lab_app.command()
def psnr(
    images: Annotated[Path, typer.Option(help="Folder of pictures, of any size and format that Pillow reads.")],
    drop: Drop,
    json: JsonFile,
    masks: Masks = "spread",
    seed: Seed = 0,
    backend: Annotated[str, typer.Option(help="Backend of the restorer: auto, as in a processor, or torch.")] = "auto",
) -> None:
    """PSNR and time of the reconstruction, of Algorithm 1 and of biharmonic inpainting on the same holes.

    The restorer runs as in a processor: on the fastest backend here, unless `--backend torch` is given. A file that
    cannot be read is named, skipped and counted. Transparent pictures are laid over white, palettes become RGB, grey
    stays one channel, more than 8 bits become 8.
    """
    from dataclasses import asdict

    with lab_extra():
        import torch

        from lab.masks import check_drop_ratio
        from lab.restoration.psnr import picture_files, psnr_rows, summary
        from processors.device.backends.choose import Wish
        from processors.device.backends.engines import restorers
        from processors.stages.learned import reconstruct_learned

        check_drop_ratio(drop)
        require_writable(json)
        spread = chosen(masks, "spread", "uniform", option="--masks") == "spread"
        run_by = chosen(backend, "auto", "torch", option="--backend")
        skipped: list[dict[str, str]] = []
        stderr = Console(stderr=True, soft_wrap=True)

        def skip(name: str, why: str) -> None:
            skipped.append({"file": name, "why": why})
            stderr.print(f"skipped {name}: {why}", markup=False, highlight=False)

        files, rows = picture_files(images), []
        _, networks = restorers(Wish("auto" if run_by == "auto" else "torch"), torch.get_num_threads())

        @torch.inference_mode()
        def fill(frames: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
            return reconstruct_learned(frames, kept, networks.of(*frames.shape[2:]))

        with progress_bar("psnr", len(files)) as advance:
            for row in psnr_rows(files, drop, skip, seed=seed, spread=spread, fill=fill):
                rows.append(row)
                advance(1)
    figures: dict[str, Any] = {**summary(rows), "images": len(rows), "skipped": len(skipped)}
    settings = {
        "folder": str(images), "drop": drop, "masks": masks, "seed": seed, "threads": torch.get_num_threads(),
        "backend": run_by,
    }  # fmt: skip
    document = figures | {"pictures": [asdict(row) for row in rows], "skipped_files": skipped, "settings": settings}
    write_json(json, document)
    print_figures(str(images), figures)
