"""`pointillist lab harden`: adversarial training through the defence, against attacks that include it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Data,
    Device,
    bundle_folder,
    lab_app,
    lab_extra,
    print_figures,
    read_npz,
    require_writable,
    shown_command,
    torch_device,
    write_json,
)
from infra.cli.progress import PhaseBars
from schemas.runtime.disk import enough_disk


@lab_app.command()
def harden(
    bundle: BundleOption,
    data: Data,
    out: Annotated[
        Path,
        typer.Option(help="Folder to create for the hardened bundle. Checkpoints are written to its sub-folder .work."),
    ],
    json: Annotated[Path | None, typer.Option("--json", help="JSON file for the figures.")] = None,
    drop: Annotated[
        list[float] | None,
        typer.Option(
            "--drop-ratio",
            help="Drop ratio of the training, as in the fleet, 0 to 0.875. Default: 0.25, or 0 with --stickers.",
        ),
    ] = None,
    eps: Annotated[float, typer.Option(help="L∞ bound ε of the attack on frames in [0, 1].")] = 8 / 255,
    epochs: Annotated[int, typer.Option(help="Number of epochs.")] = 15,
    steps: Annotated[
        int,
        typer.Option(
            help="Steps of the attack in the training: 1 is a single step, more is PGD. With --stickers: number of "
            "pairs of windows that are tried for each picture."
        ),
    ] = 1,
    trades: Annotated[
        float | None,
        typer.Option(
            help="β of TRADES: a higher value is more robust and less accurate. Default: no TRADES; train on "
            "attacked pictures alone."
        ),
    ] = None,
    stickers: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of a square adversarial patch: train for labels certified against it, in place of "
            "an attack."
        ),
    ] = None,
    windows: Annotated[int, typer.Option(help="With --stickers: maximum number of windows along a side.", min=1)] = 6,
    batch: Annotated[int, typer.Option(help="Number of pictures in a batch, over all processes.")] = 128,
    rate: Annotated[float, typer.Option(help="Maximum learning rate of the cycle.")] = 0.1,
    average: Annotated[float, typer.Option(help="Decay of the averaged weights in each step.")] = 0.998,
    held_out: Annotated[
        int,
        typer.Option(
            help="Number of pictures that are held out of the training, to select the weights, measure the network and "
            "calibrate STRIP: the last ones, or random ones if the last ones lack a class, as in a file that is sorted "
            "by class."
        ),
    ] = 1000,
    measured: Annotated[
        int, typer.Option(help="Number of held-out pictures that are attacked before and after the training.", min=1)
    ] = 256,
    flip: Annotated[bool, typer.Option(help="Also train on mirrored pictures, which must keep their class.")] = True,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bf16/--float32",
            help="Compute in bfloat16: faster on GPUs, and on CPUs with instructions for bfloat16.",
        ),
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(help="Number of parts of a batch with separate batch statistics. Default: one for each process."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", min=0, max=2**32 - 1)] = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Train a bundle's network adversarially, through random masks and the reconstruction.

    After a stop at any point, the same command resumes. Under `torchrun` all processes train one network. Robust
    accuracy is measured under EOT-PGD with the same ε: a picture counts if it is classified correctly in all of ten
    submissions.
    """
    with lab_extra():
        import torch

        from lab.certificates.measure import check_patch
        from lab.hardening.processes import joined, own_device
        from lab.hardening.run import harden as run_hardening
        from lab.hardening.run import split
        from lab.hardening.settings import MARK, HardenSettings
        from lab.hardening.training_batches import PictureBatches
        from lab.only_process import only_process
        from lab.repair.checkpoints import digest
        from lab.strip.order import shuffled
        from lab.training.bundle import write_training_record
        from lab.training.successor import LOCK, ONE_RUN, check_out, write_successor
        from processors.bundle import load_bundle

        if json is not None:
            require_writable(json)
        source = bundle_folder(bundle)
        at = own_device(torch_device(device))
        with joined(at) as processes:
            drops = drop or [0.25 if stickers is None else 0.0]
            settings = HardenSettings(
                epochs=epochs, batch=batch, eps=eps, steps=steps, drops=tuple(drops), trades=trades, rate=rate,
                average_decay=average, bfloat16=bfloat16, shards=shards or processes.count, seed=seed,
                sticker=stickers, across=windows,
            )  # fmt: skip
            processes.check(settings.shards)
            network = load_bundle(source, at)
            pictures = read_npz(data, len(network.settings.classes))
            shown = PhaseBars("harden", quiet=not processes.leads)
            training, kept = split(pictures, held_out, batch)
            if set(training.labels.tolist()) != set(kept.labels.tolist()):
                shown.print_line("the last pictures do not have the classes of the others: random ones are held out")
                training, kept = split(shuffled(pictures), held_out, batch)
            if stickers is not None:
                check_patch(kept, (stickers, stickers))
            check_out(out, source, MARK)
            with enough_disk(out), only_process(out / LOCK, ONE_RUN) if processes.leads else nullcontext():
                with shown.bars:
                    found = run_hardening(
                        network, PictureBatches(training, batch, seed, flip=flip), kept, settings,
                        inputs=digest(training.images, training.labels, str(flip)), work=out / ".work",
                        processes=processes, progress=shown, measured=measured,
                    )  # fmt: skip
                if not processes.leads:
                    return
                shown.print_line("STRIP is calibrated on the held-out pictures")
                hardened, line = write_successor(out, source, found.network, kept, MARK, dropped=True)
                lines = [f"{hardened.model_id}: {len(training)} pictures, {epochs} epochs, from {network.model_id}"]
                write_training_record(out, shown_command(), [*lines, *found.lines(), line])
        figures = found.figures()
        if json is not None:
            write_json(json, figures | {"bundle": hardened.model_id, "threads": torch.get_num_threads()})
    for text in (*found.lines(), line):
        shown.print_line(text)
    print_figures(hardened.model_id, figures)
