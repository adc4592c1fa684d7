"""`pointillist lab evidence`: thresholds of a camera's test, probes until its alarm, and its false alarms in a year."""

from __future__ import annotations

import math
from typing import Annotated, Final

import typer

from infra.cli.code import AllowCode
from infra.cli.lab.shared import (
    BundleOption,
    Clean,
    Device,
    ImagesOfEach,
    JsonFile,
    Poisoned,
    Seed,
    bundle_folder,
    lab_app,
    lab_extra,
    print_figures,
    read_sample,
    require_writable,
    torch_device,
    write_json,
)
from infra.cli.progress import progress_bar
from schemas.errors import ConfigError

LEAST: Final = 100
"""Fewest clean pictures: half of them choose, half of them judge."""


@lab_app.command()
def evidence(
    bundle: BundleOption,
    clean: Clean,
    poisoned: Poisoned,
    json: JsonFile,
    images: ImagesOfEach = None,
    fps: Annotated[float, typer.Option(help="Frames per second of a camera.", min=0.001, max=1000.0)] = 5.0,
    probe_share: Annotated[float, typer.Option(help="Share of the frames that are probes.", min=0.001, max=1.0)] = 0.05,
    allowed: Annotated[
        float, typer.Option(help="Maximum false alarms a camera and year with the chosen threshold.", min=0.0)
    ] = 0.1,
    stay: Annotated[
        float,
        typer.Option(help="Minutes that a camera shows one picture, for `still_false_alarms`.", min=0.01),
    ] = 10.0,
    episodes: Annotated[int, typer.Option(help="Number of simulated attacks.", min=1)] = 200,
    seed: Seed = 0,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Choose a camera's alarm threshold from clean pictures, and simulate attacks and years without attacks.

    Half of the clean pictures choose the threshold, and the others test it. Each probe of the simulated camera shows
    another picture, and the recorder's rule judges it. `usual` holds the figures of the default settings, `chosen` the
    figures of the chosen threshold: write `octaves` of `chosen` into the recorder's table `evidence`, as
    `combined_octaves`, or as `entropy_octaves` for a bundle that STRIP alone judges. `alarmed` is the share of attacks
    with an alarm within 40 probes. `false_alarms` is the number of false alarms of a camera in a year with its 95 %
    interval; `false_alarms_bound` allows for deeper scores than measured. `few_passages` warns that an estimate rests
    on too few simulated alarms. `exceeds_allowed` marks thresholds with more false alarms than allowed.
    `alarmed_clean_starts` is the share of starts without a trigger that raise an alarm in their first 64 probes.
    `still_false_alarms` is the number of appearances in a year that raise a false alarm, with its interval over
    pictures, if a camera shows each picture for `--stay` minutes: a picture that is unusual is unusual in each of its
    probes. With p-values, one picture adds at most half of an alarm's evidence. The pictures follow each other at
    random, and none changes while it is shown: all its probes have its one score, and the first 400 of an appearance
    are simulated. A lower `combined_octaves` or `entropy_octaves` raises fewer alarms, and finds fewer triggers, and
    later.
    """
    with lab_extra():
        from lab.evidence.measure import Choice, Stream, chosen_rule, figures_of
        from lab.evidence.scores import Limits, halves, scored
        from lab.evidence.still_scenes import SceneScores, coarse_of, still_false_alarms
        from lab.strip.measure import threshold_for
        from processors.bundle import load_bundle
        from processors.pipeline import Pipeline
        from schemas.evidence.rule import EvidenceRule

        for option, value in (("--allowed", allowed), ("--stay", stay)):
            if not math.isfinite(value):
                raise ConfigError(f"{option}: expected a finite number, got {value}. Correct it.")
        require_writable(json)
        network = load_bundle(bundle_folder(bundle), torch_device(device))
        pipeline, stream = Pipeline(network), Stream(fps, probe_share)
        strip = threshold_for(pipeline, 0, 0.0)
        table = network.settings.strip
        combined = None if table is None else table.combined
        limits = Limits(strip.threshold_bits, 0.0 if combined is None else combined.threshold)
        # In the order of a file, classes in turn would fall into one half each.
        files = [read_sample(file, len(network.settings.classes), images) for file in (clean, poisoned)]
        if len(files[0]) < LEAST:
            raise ConfigError(f"--clean: expected at least {LEAST} pictures, got {len(files[0])}. Give more.")
        passes = 1 if combined is None else len(combined.tails)
        with progress_bar("evidence", passes * sum(map(len, files))) as advance:
            harmless, attacked = (scored(pipeline, file, advance) for file in files)
        parts = halves(harmless)
        pictures = SceneScores(parts.judging, 1, coarse_of(files[0])[1::2])
        usual = EvidenceRule()
        chosen = chosen_rule(parts.choosing, limits, usual, stream, allowed)
        probes, found = max(1, round(60 * stay * stream.probes_per_s)), dict[str, dict[str, object]]()
        for name, choice in (("usual", Choice(usual)), ("chosen", chosen)):
            figures = figures_of(
                parts.judging, attacked, limits, choice, stream, allowed=allowed, count=episodes, seed=seed
            ).figures()
            still = still_false_alarms(pictures, limits, choice.rule, probes, stream.probes_per_s, seed=seed)
            figures["still_false_alarms"] = still.a_year.value
            figures["still_false_alarms_interval"] = list(still.a_year[1:])
            found[name] = figures
    settings = {
        "bundle": network.model_id, "clean": str(clean), "poisoned": str(poisoned), "fps": fps,
        "probe_share": probe_share, "allowed": allowed, "stay_min": stay, "episodes": episodes, "seed": seed,
        "clean_choosing": len(parts.choosing), "clean_judging": len(parts.judging), "attacked": len(attacked),
    }  # fmt: skip
    write_json(json, {**found, "settings": settings})
    for name, each in found.items():
        print_figures(f"{network.model_id}, {name}", each)
