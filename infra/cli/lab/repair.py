"""`pointillist lab repair`: repair of a backdoored bundle from clean pictures and frames that STRIP flagged."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.access import existing_layout
from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    bundle_folder,
    chosen,
    lab_app,
    lab_extra,
    print_figures,
    read_npz,
    require_writable,
    write_json,
)
from infra.cli.progress import PhaseBars, PhaseLines
from infra.cli.roles import role_keys
from infra.cli.terminal import print_skipped
from schemas.errors import BundleError, ConfigError, SecretError
from schemas.runtime.disk import enough_disk

if TYPE_CHECKING:
    from schemas.keys.sealing import PreviewBox


@lab_app.command()
def repair(
    bundle: Annotated[
        str,
        typer.Option(
            help="Bundle with the backdoor: a folder with model.toml, or the name of a bundle: shipped, or made here."
        ),
    ],
    clean: Annotated[
        Path, typer.Option(help="npz with clean images (N, H, W, C) uint8 and labels (N,), not trained on.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the repaired bundle, the report and the checkpoints.")],
    quarantine: Annotated[
        Path | None,
        typer.Option(
            help="Folder of flagged frames as PNG, sealed or plain, including sub-folders. Not needed with --mode "
            "clean."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="State folder with the secret that opens sealed frames. Default: POINTILLIST_ROLE_SECRET(_FILE) of "
            "the role console."
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="Method: default, paper (CycleGAN and retraining of CoDefend), quarantine (no trigger, frames of "
            "any class) or clean (no quarantine)."
        ),
    ] = "default",
    evaluate_clean: Annotated[
        Path | None, typer.Option(help="npz like --clean, used only for the measurement.")
    ] = None,
    evaluate_poisoned: Annotated[
        Path | None,
        typer.Option(help="npz like --evaluate-clean, with the trigger in the images; labels are the true classes."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="JSON file for the figures, which the report contains too.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the unlearning.", min=0, max=2**32 - 1)] = 0,
    progress: Annotated[
        bool, typer.Option("--progress", help='Print lines {"phase", "step", "steps"} on stdout during the repair.')
    ] = False,
    allow_code: AllowCode = False,
) -> None:
    """Learn the trigger of a backdoor from quarantined frames and make the network unlearn it.

    If no kind of trigger explains the quarantine, the network unlearns its labels of the quarantined frames. --mode
    quarantine skips the search for a trigger, and accepts frames of many classes. --mode clean fine-tunes on the clean
    pictures alone, by FT-SAM. The report names the method.

    After a stop at any point, the same command resumes. A network is not published if its accuracy on held-out clean
    frames falls by significantly more than one point, or by more than five: no model.toml, exit status 2; the report
    stays.
    """
    with lab_extra():
        import numpy as np
        import torch

        from lab.only_process import only_process
        from lab.repair.checkpoints import digest
        from lab.repair.figures import Evaluation
        from lab.repair.held_out import split
        from lab.repair.inputs import listed, no_frames, quarantined_files, read_quarantine
        from lab.repair.publish import MARK, check_out
        from lab.repair.report import write_report
        from lab.repair.run import RepairSettings
        from lab.repair.run import repair as run_repair
        from lab.training.successor import LOCK, ONE_RUN, withdraw, write_successor
        from processors.bundle import load_bundle

        if state is not None:
            existing_layout(state)
        way: Any = chosen(mode, "default", "paper", "quarantine", "clean", option="--mode")
        if json is not None:
            require_writable(json)
        source = bundle_folder(bundle)
        backdoored = load_bundle(source, torch.device("cpu"))
        classes = backdoored.settings.classes
        pictures = read_npz(clean, len(classes))
        if quarantine is None and way != "clean":
            raise ConfigError("--quarantine: expected a folder of flagged frames, got none. Or use --mode clean.")
        # The model id, which the checkpoints contain, does not cover all settings, such as the normalisation.
        work = out / ".work" / digest(backdoored.settings.model_dump_json(exclude={"strip"}))[:12]
        interrupted = work / "quarantine.json"
        files = [] if quarantine is None else quarantined_files(quarantine, interrupted, print_skipped)
        flagged = (
            no_frames(backdoored)
            if quarantine is None
            else read_quarantine(quarantine, backdoored, lambda: _preview_box(state), print_skipped, files=files)
        )
        evaluation = Evaluation(
            *(None if file is None else read_npz(file, len(classes)) for file in (evaluate_clean, evaluate_poisoned))
        )
        check_out(out, source, quarantine)
        shown = PhaseLines() if progress else PhaseBars("repair")
        with (
            enough_disk(out),
            only_process(out / LOCK, ONE_RUN),
            nullcontext() if quarantine is None else listed(files, quarantine, interrupted),
        ):
            with shown.bars:
                result = run_repair(
                    backdoored, pictures, flagged, RepairSettings(way, seed=seed),
                    evaluation=evaluation, work=work, progress=shown,
                )  # fmt: skip
            good = result.acceptable
            line = None
            if good:
                trained = split(pictures.labels, seed)[0]
                unseen = pictures.take(np.setdiff1d(np.arange(len(pictures)), trained))
                line = write_successor(out, source, result.network, pictures, MARK, unseen=unseen)[1]
            else:
                withdraw(out)
            verdict = f"The repaired network is {'published.' if good else 'NOT published: it lost too much.'}"
            write_report(out, result, classes, verdict, line)
        document = result.figures | {"bundle": backdoored.model_id, "threads": torch.get_num_threads()}
        if json is not None:
            write_json(json, document)
    print_figures(backdoored.model_id, flat(document))
    if not good:
        raise BundleError(
            f"repair: expected to lose at most 1 point of accuracy, got {result.held_out.describe()}, and "
            f"{100 * result.chosen.lost:.1f} points of the {result.chosen.count} that chose the weights. The "
            f"network is not published: see {out / 'report.md'}."
        )


def _preview_box(state: Path | None) -> PreviewBox:
    """Return the cipher of quarantined frames, with the console's secret. Raises SecretError without it."""
    from infra.state_folder.environment import Environment

    known = Environment()
    if state is None and not any(
        (known.role_secret, known.role_secret_file, known.fleet_secret, known.fleet_secret_file)
    ):
        raise SecretError(
            "--state is missing: the frames of --quarantine are sealed. Give the state folder of their fleet, or set "
            "POINTILLIST_ROLE_SECRET(_FILE) to the secret of the role console."
        )
    return role_keys(state, "console").previews


def flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the inner tables' figures in the rows of the outer ones."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        found |= flat(value, f"{name}, ") if isinstance(value, dict) else {prefix + name: value}
    return found
