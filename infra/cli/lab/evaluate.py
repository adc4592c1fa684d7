"""`pointillist lab evaluate` and `psnr`: accuracy behind the defence, and the quality of the reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Data,
    Device,
    DropRatio,
    Images,
    JsonFile,
    Seed,
    attack_of,
    bundle_folder,
    chosen,
    lab_app,
    lab_extra,
    print_figures,
    read_sample,
    require_writable,
    torch_device,
    write_json,
)
from infra.cli.progress import progress_bar
from infra.cli.terminal import print_skipped

Masks = Annotated[str, typer.Option(help="Distribution of the dropped pixels: spread, as in cameras, or uniform.")]


@lab_app.command()
def evaluate(
    bundle: BundleOption,
    data: Data,
    drop: DropRatio,
    json: JsonFile,
    mode: Annotated[str, typer.Option(help="Reconstruction: default (learned) or paper (Algorithm 1).")] = "default",
    attack: Annotated[
        str | None,
        typer.Option(help="Attack on the network without the defence: fgsm, ifgsm, pgd, … Default: no attack."),
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Bound of the attack on frames in [0, 1]. Default: the attack's own.")
    ] = None,
    untargeted: Annotated[
        bool,
        typer.Option(help="Attack towards any wrong class. Default: towards a random wrong class for each picture."),
    ] = False,
    images: Images = None,
    masks: Masks = "spread",
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Measure the accuracy of a network: without the defence, under an attack, and behind the defence.

    Attacked pictures are rounded to 8 bits before the drop. Shares come with Wilson intervals of 95 %.
    """
    with lab_extra():
        import torch

        from lab.restoration.evaluate import evaluate as run_evaluation
        from processors.bundle import load_bundle
        from processors.pipeline import Pipeline

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
    drop: DropRatio,
    json: JsonFile,
    masks: Masks = "spread",
    seed: Seed = 0,
    backend: Annotated[
        str,
        typer.Option(help="Runtime of the reconstruction network: torch, or auto, which chooses as a processor does."),
    ] = "auto",
) -> None:
    """Measure PSNR and time of the reconstruction, of Algorithm 1 and of biharmonic inpainting under the same masks.

    The reconstruction network runs as in a processor, on the fastest backend here, unless you give `--backend torch`. A
    file that cannot be read is named, skipped and counted. Transparent pictures are laid over white, palettes become
    RGB, grey stays one channel, more than 8 bits become 8.
    """
    from dataclasses import asdict

    with lab_extra():
        import torch

        from lab.restoration.psnr import picture_files, psnr_rows, summary
        from processors.device.backends.choose import BackendRequest
        from processors.device.backends.engines import restorers
        from processors.stages.learned import reconstruct_learned

        require_writable(json)
        spread = chosen(masks, "spread", "uniform", option="--masks") == "spread"
        run_by = chosen(backend, "auto", "torch", option="--backend")
        skipped: list[dict[str, str]] = []

        def skip(name: str, why: str) -> None:
            skipped.append({"file": name, "why": why})
            print_skipped(name, why)

        files, rows = picture_files(images), []
        _, networks = restorers(BackendRequest("auto" if run_by == "auto" else "torch"), torch.get_num_threads())

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
