"""`pointillist model candidate`, `promote` and `dismiss`: the rollout of a model on live frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.access import existing_layout
from infra.cli.audit_line import note
from infra.cli.code import AllowCode
from infra.cli.model import (
    ModelsChange,
    Only,
    OtherClasses,
    check_only,
    checked,
    described,
    folder_of,
    initial,
    model_app,
    private_copy,
    report_change,
)
from infra.cli.shared_options import with_shared_options
from infra.cli.terminal import print_skipped
from schemas.clock import unix_ms
from schemas.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from infra.bundling.models_topic import ModelsTopic
    from lab.data import LabelledPictures
    from lab.repair.scan import ScanResult
    from processors.bundle import Bundle
    from schemas.pointillist_pb2 import Model, Rollout


_NO_ROLLOUT: Final = "candidate is missing: expected a rollout. Begin one by `pointillist model candidate`."
_MOST_SCANNED: Final = 250
"""Pictures of a folder that the scan reads, spread over the classes."""


@model_app.command()
@with_shared_options
def candidate(
    bundle: Annotated[
        Path, typer.Argument(help="A folder with model.toml, or the name of a bundle: shipped, or made here.")
    ],
    *,
    slot: Annotated[
        str,
        typer.Option(
            help="shadow (classifies live frames, but its verdicts do not count) or canary (serves a share of the "
            "cameras)."
        ),
    ] = "shadow",
    frames: Annotated[
        float, typer.Option(help="Share of the frames that both models classify; greater than 0.", min=0, max=1)
    ] = 0.2,
    cameras: Annotated[
        float, typer.Option(help="Share of the cameras that a canary serves; greater than 0.", min=0, max=1)
    ] = 0.25,
    by_rule: Annotated[
        bool,
        typer.Option(
            help="Allow the monitor's gate to promote the candidate: to canary, then to live. Requires --clean."
        ),
    ] = False,
    clean: Annotated[
        Path | None,
        typer.Option(
            help="Clean labelled pictures for the backdoor scan before the rollout: an npz with images and labels, or "
            "a folder with a sub-folder for each class."
        ),
    ] = None,
    decider: Annotated[
        Path | None,
        typer.Option(
            help="File of the gate's public key, a line as `signer init` prints it. Default: the key in --state."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            help="Begin even if the classes differ, STRIP or the backdoor scan is missing, or it finds a backdoor."
        ),
    ] = False,
    other_classes: OtherClasses = False,
    progress: Annotated[bool, typer.Option("--progress", hidden=True, help="Print progress as JSON.")] = False,
    allow_code: AllowCode = False,
    access: ModelsChange,
) -> None:
    """Sign a bundle and let it classify live frames next to the live model; the monitor's gate compares both.

    Exit status 1 when a processor rejects the candidate or has not answered in time, 2 when the rollout does not begin.
    """
    from infra.bundling.model_identity import check_identity
    from infra.bundling.models_topic import check_successor
    from schemas.messages import models as listed
    from schemas.messages import rollout
    from schemas.pointillist_pb2 import CANARY, SHADOW, Rollout
    from schemas.topics import KafkaTopic

    if slot not in ("shadow", "canary"):
        raise ConfigError(f"--slot: expected shadow or canary, got {slot!r}. Choose one of them.")
    for option, share in (("--frames", frames), ("--cameras", cameras)):
        if not share:
            raise ConfigError(f"{option}: expected a share above 0, got 0. Without frames nothing is compared.")
    if by_rule and clean is None:
        raise ConfigError("--clean is missing: expected clean pictures for the scan with --by-rule. Give --clean FILE.")
    place, key, state = access.bundles, access.key, access.state
    public = _decider(decider, state)
    if by_rule and not public:
        raise ConfigError(
            "--decider is missing: expected the gate's public key with --by-rule. Give --decider FILE or --state DIR."
        )
    with private_copy(folder_of(bundle)) as folder:
        model_id = checked(folder)
        scan = _scanned(folder, clean, progress)
        _check_scan(scan, slot, by_rule, force)
        suspect = scan is not None and not scan.clean

        async def run(topic: ModelsTopic) -> bool:
            await topic.require(KafkaTopic.COMPARISONS.value)
            before = topic.models if topic.models.published else initial(state, place, key)
            live = listed.live(before)
            next_model = described(folder, model_id)
            if live is not None and not force:
                check_successor(next_model, live, other_classes=other_classes)
            if by_rule:
                _check_classes(next_model, live)
            check_identity(folder, model_id, rollout.named(before))
            model = listed.sign(place.add(folder, model_id), key)
            if live is not None and live.digest == model.digest:
                raise ConfigError(
                    f"bundle: expected another model than the live one, got {model_id}. Choose another bundle."
                )
            begun = Rollout(
                candidate=model,
                begun_ms=unix_ms(),
                slot=SHADOW if slot == "shadow" else CANARY,
                frames=frames,
                cameras=cameras,
                by_rule=by_rule,
                decider=public,
                # With --force a person has decided on a suspect bundle: the gate then measures no scan.
                scan=scan.as_json() if scan is not None and not suspect else "",
            )
            await access.write(topic, rollout.begin(before, begun))
            detail = f"{slot}, frames {frames:g}, cameras {cameras:g}{', suspect scan' if suspect else ''}"
            note(state, "candidate", model_id, detail, "begun")
            return await report_change(
                topic, f"{model_id} is the candidate ({slot})", access.wait, topic.wait_for_candidate
            )

        access.apply(run, key)


@model_app.command()
@with_shared_options
def promote(
    *,
    to: Annotated[str, typer.Option(help="Slot of the candidate after the promotion: live or canary.")] = "live",
    force: Annotated[bool, typer.Option(help="Promote even if not all rules of the gate hold.")] = False,
    only: Only = None,
    access: ModelsChange,
) -> None:
    """Make the candidate the live model, or a canary.

    Exit status 1 when a processor rejects the model or has not answered in time, 2 when the gate's rules do not hold
    yet.
    """
    from schemas.messages import rollout
    from schemas.pointillist_pb2 import CANARY, PASSED, SHADOW

    if to not in ("live", "canary"):
        raise ConfigError(f"--to: expected live or canary, got {to!r}. Choose one of them.")

    async def run(topic: ModelsTopic) -> bool:
        running = _running(topic)
        check_only(only, running.candidate.model_id)
        assessment = topic.assessment
        if not force and (assessment is None or assessment.outcome != PASSED):
            raise ConfigError(
                f"{running.candidate.model_id}: expected an assessment with all rules passed, got none. Wait for the "
                "gate, see `pointillist model status`, or give --force."
            )
        if not force and to == "canary" and running.slot == SHADOW and not running.scan:
            raise ConfigError(
                "candidate: expected a backdoor scan before a canary, got none. Begin again with --clean."
            )
        model_id = running.candidate.model_id
        if to == "live":
            await access.write(topic, rollout.promoted(topic.models))
            note(access.state, "promote", model_id, "forced" if force else "by hand", "live")
            return await report_change(topic, f"promoted {model_id}", access.wait)
        running.slot, running.begun_ms = CANARY, unix_ms()
        await access.write(topic, rollout.begin(topic.models, running))
        note(access.state, "promote", model_id, "forced" if force else "by hand", "canary")
        return await report_change(topic, f"{model_id} is a canary", access.wait, topic.wait_for_candidate)

    access.apply(run)


@model_app.command()
@with_shared_options
def dismiss(
    *,
    only: Only = None,
    access: ModelsChange,
) -> None:
    """End the rollout: the candidate classifies no further frame, and the live model stays."""
    from schemas.messages import rollout

    async def run(topic: ModelsTopic) -> bool:
        if not topic.listed.HasField("rollout"):
            raise ConfigError(_NO_ROLLOUT)
        model_id = topic.listed.rollout.candidate.model_id
        check_only(only, model_id)
        await access.write(topic, rollout.ended(topic.models))
        note(access.state, "dismiss", model_id, "by hand", "ended")
        return await report_change(topic, f"dismissed {model_id}", access.wait, topic.wait_for_candidate)

    access.apply(run)


def _running(topic: ModelsTopic) -> Rollout:
    from schemas.messages.rollout import slots

    running = slots(topic.models).rollout
    if running is None:
        raise ConfigError(_NO_ROLLOUT)
    return running


def _scanned(folder: Path, clean: Path | None, progress: bool) -> ScanResult | None:
    """Return the result of the scan of a bundle for triggers; None without clean pictures."""
    if clean is None:
        return None
    from infra.cli.lab.shared import lab_extra

    with lab_extra():
        import torch

        from infra.cli.progress import PhaseBars, PhaseLines
        from lab.repair.scan import scan
        from processors.bundle import load_bundle

        bundle = load_bundle(folder, torch.device("cpu"))
        pictures = _clean_pictures(bundle, clean)
        shown = PhaseLines() if progress else PhaseBars("repair")
        with shown.bars:
            shown.phase("searching each class for a trigger", len(bundle.settings.classes))
            return scan(bundle, pictures, advance=shown.advance)


def _check_scan(scan: ScanResult | None, slot: str, by_rule: bool, force: bool) -> None:
    """Check that a bundle with this scan may be a candidate. Raises BundleError for a trigger, else ConfigError."""
    if scan is None:
        if slot == "canary" and not force:
            raise ConfigError(
                "--clean is missing: expected a backdoor scan before a canary. Give --clean FILE or --force."
            )
    elif not scan.clean:
        if not force:
            raise BundleError(
                f"bundle: expected a backdoor scan without a trigger, got {scan.as_json()}. Repair it by "
                "`pointillist lab repair`."
            )
        if by_rule:
            raise ConfigError(
                "--by-rule: expected a backdoor scan without a trigger, got a trigger. Remove --by-rule, and promote "
                "the candidate yourself."
            )


def _check_classes(next_model: Model, live: Model | None) -> None:
    """Check that the monitor's gate can compare the verdicts of two models. Raises ConfigError."""
    if live is None:
        raise ConfigError(
            "--by-rule: expected a live model in the list, got none: the classes cannot be compared. Publish the "
            "processors' bundle first, or remove --by-rule and promote the candidate yourself."
        )
    if list(next_model.classes) != list(live.classes):
        raise ConfigError(
            "--by-rule: expected the classes of the live model, got others, whose verdicts the gate cannot "
            "compare. Remove --by-rule, and promote the candidate yourself."
        )


def _clean_pictures(bundle: Bundle, clean: Path) -> LabelledPictures:
    from infra.bundling.gallery import picture_files, read_gallery
    from infra.cli.lab.shared import read_npz
    from processors.pipeline import Pipeline

    if not clean.is_dir():
        return read_npz(clean, len(bundle.settings.classes))
    chosen = picture_files(clean, bundle.settings.classes, _MOST_SCANNED)
    if not chosen.labelled:
        raise ConfigError(f"--clean: expected sub-folders named by class in {clean}, got pictures. Sort them by class.")
    return read_gallery(Pipeline(bundle), chosen, print_skipped)


def _decider(given: Path | None, state: Path | None) -> bytes:
    """Return the gate's public key; empty without one: then only people decide.

    Raises ConfigError for a file without a key.
    """
    from schemas.keys.signers import TrustedSigners

    if given is not None:
        publics = TrustedSigners.read(given).publics()
        if not publics:
            raise ConfigError(
                f"--decider: expected the gate's public key as `signer init` prints it, got none in {given}. "
                "Correct the file."
            )
        return publics[0]
    return existing_layout(state).decider().public if state is not None else b""
