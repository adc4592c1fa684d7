"""`pointillist lab learn-table`: the table of the stage dct-quantisation, from the effect of an attack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Device,
    Seed,
    attack_of,
    bundle_folder,
    file_of_pictures,
    lab_app,
    lab_extra,
    torch_device,
)
from infra.cli.progress import progress_bar
from infra.cli.terminal import print_line
from schemas.errors import ConfigError


@lab_app.command("learn-table")
def learn_table(
    bundle: BundleOption,
    data: Annotated[
        Path,
        typer.Option(help="npz with clean images (N, H, W, C) or (N, H, W) uint8 and labels (N,); or cifar10.npz."),
    ],
    out: Annotated[Path, typer.Option(help="Text file for the table, such as one in the bundle's folder.")],
    images: Annotated[int, typer.Option(help="Number of pictures, drawn at random.", min=1)] = 500,
    attack: Annotated[str, typer.Option(help="Attack on the network without the defence: cw, pgd, …")] = "cw",
    eps: Annotated[
        float | None, typer.Option(help="Bound of the attack on frames in [0, 1]. Default: the attack's own.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Learn which 8×8 DCT coefficients an attack changes most, and write quantisation steps for a [[preprocess]] table.

    From cifar10.npz, the first --images of the last 1,000 training pictures are used. After a stop, the same command
    resumes.
    """
    with lab_extra():
        from infra.state_folder import regular_file, writing
        from lab.dct_table import learn_table as learn
        from lab.dct_table import read_clean
        from processors.bundle import load_bundle
        from processors.stages.preprocess.dct_quantisation import table_text
        from schemas.runtime.atomic_file import replacing

        if out.is_dir() or not out.absolute().parent.is_dir():
            raise ConfigError(f"--out: expected a file in an existing folder, got {out}. Choose another file.")
        target = regular_file(out)
        wanted = attack_of(attack, eps, False)
        assert wanted is not None
        network = load_bundle(bundle_folder(bundle), torch_device(device))
        with file_of_pictures(data):
            pictures = read_clean(data, len(network.settings.classes), images)
        progress = out.with_name(f".{out.name}.progress.json")
        with progress_bar("learn-table", len(pictures)) as advance:
            learned = learn(network, pictures, wanted, progress, seed=seed, advance=advance)
        bound = "" if wanted.eps is None else f" within {wanted.eps:g}"
        comments = [
            "Steps of the DCT coefficients on the scale 0-255: a line a vertical frequency, a column a horizontal one.",
            f"{network.model_id}: {learned.examples} examples of {wanted.name}{bound} on {len(pictures)} pictures of "
            f"{data.name}, seed {seed}",
        ]
        with writing("--out", out), replacing(target) as fresh:
            fresh.write_text(table_text(learned.steps, comments), encoding="utf-8")
        progress.unlink(missing_ok=True)
    print_line(f"{learned.examples} adversarial examples of {len(pictures)} pictures; {out} holds the steps")
    print_line(f'in the bundle\'s model.toml:\n[[preprocess]]\nstage = "dct-quantisation"\ntable = "{out.name}"')
