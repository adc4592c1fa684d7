"""The page of the experiment, made from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.backdoor.near_duplicates import ALIKE
from lab.backdoor.tasks import HELD_OUT
from lab.evidence.splitting import FEW, REPETITIONS
from lab.evidence.still_scenes import QUIET_ROUNDS, ROUNDS
from lab.experiments.codefend import plots, tables
from lab.experiments.codefend.attacks import detection_matrix, findings_of_attacks, repair_matrix
from lab.experiments.codefend.findings import Finding, findings
from lab.experiments.codefend.plan import COMPARED, MAIN, WITHOUT_TRIGGER
from lab.experiments.codefend.rows import (
    CameraRow,
    DetectionRow,
    DetectorRow,
    ModelRow,
    RepairRow,
    SplittingRow,
    StillRow,
)
from lab.experiments.codefend.scores import BEATRIX, TOGETHER
from lab.experiments.codefend.still_scores import SCENES
from lab.experiments.harness.page import table, write_page
from lab.experiments.harness.store import ROWS, Store

COMMAND = "pointillist lab stale --only codefend --run"


Rows = tuple[list[ModelRow], list[DetectionRow], list[RepairRow]]


def _rows(store: Store) -> Rows:
    return (
        store.records("models", ModelRow),
        store.records("detection", DetectionRow),
        store.records("repair", RepairRow),
    )


def read_findings(store: Store) -> list[Finding]:
    """Return the requirements with the figures measured in the rows of `store`."""
    models, detections, repairs = _rows(store)
    detectors, cameras = store.records("detectors", DetectorRow), store.records("cameras", CameraRow)
    still = store.records("still", StillRow)
    return [*findings(models, detections, repairs), *findings_of_attacks(detectors, cameras, still, repairs)]


def _detectors(rows: Sequence[DetectorRow]) -> list[str]:
    if not rows:
        return []
    return [
        "## Other statistics",
        "*Drop disagreement*: the whole frame is judged again behind random drops, and the mean probability of its "
        "first label is low for a fragile trigger. STRIP finds triggers that survive everything. *Typicality*: the "
        "share of clean pictures with the same label whose features lie farther from the label's mean, by the "
        "Mahalanobis distance of the channel means of the last two normalised layers. *Layer disagreement*: the "
        "log-odds of the label against the best other class in the three layers before, by linear discriminants of "
        "clean pictures; low where the answer changes late. *Scaled batch norms* is IBD-PSC (Hou et al. 2024), judged "
        "by log-odds: a planted label holds in five networks whose last batch norms are amplified. Their number is "
        "chosen on clean pictures. *All together* is what runs live: one p-value of these five, Fisher's combination "
        "of their shares of clean pictures, with a threshold that holds for nine calibrations of ten. *SCALE-UP* (Guo "
        "et al. 2023), by log-odds too: the label holds while the pixels are multiplied. *Beatrix* (Ma et al. 2023): "
        "Gram matrices of the last convolution outside their range in clean pictures of the label; "
        f"{_false_alarms(rows, BEATRIX)}. Thresholds are from the defender's clean pictures for 1 % of false alarms. "
        "*Detected*: share of the triggered pictures that reach the target.",
        table(tables.DETECTORS, rows),
    ]


def _cameras(rows: Sequence[CameraRow], estimates: Sequence[SplittingRow]) -> list[str]:
    if not rows:
        return []
    return [
        "## Evidence of a camera",
        "Simulated with the recorder's own rule (`schemas/evidence/track.py`) on the scores of single pictures: the "
        "camera shows another test picture in each probe. *Within 40*: share of attacks with an alarm within 40 "
        "probes, after 64 clean ones; every later frame carries the trigger, also where it misses its target. *False "
        "alarms a year*: of one camera with 5 frames/s and 5 % probes, estimated by multilevel splitting, with a 95 % "
        "interval over independent repetitions. *More than* marks a rule whose false alarms are above the allowed "
        "ones. *Bound*: the upper end if a share of 3 ÷ n of the probes had the deepest possible scores, which n clean "
        "pictures cannot exclude. *Clean starts*: 200 starts without a trigger, 64 probes each; before a baseline the "
        "threshold alone judges. The *chosen* threshold is the highest that allows 0.1 false alarms a year and no "
        "alarm in 200 clean starts on the defender's clean pictures; the test pictures judge it.",
        table(tables.CAMERAS, rows),
        "The estimates. *Passages* of each level of the sum, the alarm's last, in "
        f"{REPETITIONS} repetitions together. A level with fewer than {FEW} is marked *few*: its interval may be too "
        "narrow. *Deeper* scores give the bound.",
        table(tables.SPLITTING, estimates),
    ]


def _still(rows: Sequence[StillRow]) -> list[str]:
    if not rows:
        return []
    return [
        "## Evidence of a camera that looks at one scene for long",
        "Evidence adds up over probes, as if they were independent. Probes of one scene are not: a clean scene "
        "that is unusual is unusual in each of them. The recorder therefore limits the evidence of one scene; "
        "*not limited* are the same cameras if their processor names no scenes. The limit was chosen on the networks "
        "of the patch and of WaNet, on the scenes of this table. Each camera shows a scene for some probes, "
        "at 5 frames/s and 5 % probes 15 in a minute and 150 in ten. A scene is a "
        f"test picture, with {SCENES.frames} frames that differ by Gaussian noise of {SCENES.noise:g} levels of "
        "255 and by the masks of their probes; each probe shows one of them at random. *New* scenes come in random "
        f"order; a camera with scenes *in turn* goes round a few, {ROUNDS} times before it gets others, and its false "
        "alarms count from the second round. Nothing moves. "
        "*False alarms*: share of the appearances of clean scenes that raise an alarm, "
        "and the number of these in a year, with intervals over scenes. *Attacks*: those of 400 attacked scenes whose "
        "triggered frames mostly reach the target. The trigger comes into view in such a scene after 64 clean probes, "
        "and stays in view in all later scenes, also where it misses its target. Of the scenes in turn, one gets the "
        f"trigger, after {QUIET_ROUNDS} rounds and while the camera looks at the others, which have none. "
        "*Within 40*: share of these attacks with an alarm within 40 probes. The noise costs WaNet a part of its "
        "success.",
        table(tables.STILL, rows),
    ]


def _false_alarms(rows: Sequence[DetectorRow], statistic: str) -> str:
    """Return the words on the models on which a statistic flags more clean test pictures than the 1 % asked for."""
    found = [row for row in rows if row.statistic == statistic]
    more = [row for row in found if row.frr > 0.01]
    names = ", ".join(f"{row.model} {100 * row.frr:.1f} %" for row in more)
    beyond = f", more in {len(more)} ({names})" if more else ""
    return f"it flags at most 1 % of the clean test pictures in {len(found) - len(more)} of {len(found)} models{beyond}"


def write_report(store: Store) -> list[str]:
    """Write README.md; return the verdicts, a line each."""
    out = store.folder
    models, detections, repairs = _rows(store)
    found, detectors = read_findings(store), store.records("detectors", DetectorRow)
    methods = ("default", *WITHOUT_TRIGGER)
    parts = [
        "# CoDefend: detection and repair of backdoored models",
        f"Made by `{COMMAND}`; rows and their provenance are in `{ROWS}`.",
        "The backdoored models are made by `python -m lab.backdoor.train`, see `lab/backdoor/catalogue.py`.",
        "CA: clean accuracy on the test split. ASR: share of triggered test pictures of other classes that go to the "
        "target. Recovered: share of them that get their true class. Floor: what the clean network of the same kind "
        "sends to the target. FRR, FAR: clean frames flagged, triggered frames not flagged. The defender has 1,000 "
        "clean pictures: 500 for repairs, 900 for the thresholds of the statistics. A quarantine holds what STRIP "
        "(*pure*) or all statistics together (*flagged*) flag of about 500 triggered frames: copies of the pictures "
        "that no repair gets, most of which set thresholds too, without the trigger. Networks on MNIST and "
        "GTSRB, and those of WaNet, SIG and low frequency, were poisoned from the beginning, the others by continuing "
        f"the training of a clean one. GTSRB is a subset: all but the defender's {HELD_OUT:,} of its test pictures "
        f"judge; those of one class that correlate above {ALIKE:g} are in the same part. CIFAR-100: not measured, its "
        "data is not there.",
        "## Figures asked for",
        tables.findings_table(found),
        "## The backdoored models (the paper's Table 1 and Figure 5)",
        tables.models_table(models),
        _pictures(out, plots.TRIGGERS, [(row.model,) for row in models]),
        "## Detection (Table 3, Figure 6)",
        "On pictures, our STRIP takes the entropy of the mean answer over all overlays. The paper's equation 4 takes "
        "the mean of their entropies, which finds fewer triggers.",
        tables.detection_table(detections),
        "The paper's, on 500 + 500 pictures:",
        tables.published_detection(),
        _pictures(
            out, plots.ENTROPIES, [(row.model,) for row in detections if row.frames == "whole" and not row.sequential]
        ),
        "## Ten attacks at a glance",
        "Detected share of the triggered frames that reach the target, in per cent. Single statistics flag 1 % of the "
        "defender's 900 clean pictures. *All together* flags 4 of them, so that at most 1 % is flagged in about nine "
        f"calibrations of ten; here, {_false_alarms(detectors, TOGETHER)}. It runs live in bundles that `lab calibrate "
        "--combined` has calibrated.",
        detection_matrix(detectors),
        "ASR after each repair, in per cent, and the points of clean accuracy that it loses. *Ours* uses the "
        "quarantine, for the all-to-all attack by `--mode quarantine`; the others have the 500 clean pictures alone. "
        "A refused network is not published, and its attack stays as it was before.",
        repair_matrix(repairs),
        *_detectors(detectors),
        *_cameras(store.records("cameras", CameraRow), store.records("splitting", SplittingRow)),
        *_still(store.records("still", StillRow)),
        "## Repair (Table 4, Figures 7 and 8)",
        tables.repair_table(repairs),
        "The paper's:",
        tables.published_repair(),
        _pictures(out, plots.GENERATED, [row.key for row in repairs]),
        f"## Compared with other methods (Table 5): {MAIN}",
        "Printed figures are for the paper's own network and trigger C; those measured here share the backdoored model "
        "and the 500 clean pictures. *default*, *variance ratio* and *paper* have the quarantine as well, about 500 "
        "frames with the trigger. The best fine-tuning is the one of the grid with the least ASR that loses at most 2 "
        "points, chosen on the test split, in its favour. CoDefend's printed CA, 88.27, is that before the repair; its "
        "Table 4 gives 87.18 after it. *paper* has our guard and our conditions: it trains on 400 of the 500 clean "
        "pictures and takes back a part of its change if the others lose accuracy, its batch norms are frozen, and the "
        "rate of its second training is ours. Neural Cleanse stops after 100 steps and names class 2 where the target "
        "is 5. It, fine-pruning and fine-tuning use no quarantine.",
        tables.comparison_table(repairs, MAIN),
        "## Without a trigger",
        "Repairs from the 500 clean pictures alone, next to our default, which uses the quarantine too. *clean* is our "
        "mode without a quarantine: FT-SAM on 400 of the pictures, and the guard on the others. If no kind of trigger "
        "explains the quarantine, the default unlearns the labels of its frames, and has no activation in the table "
        "above. *ft-sam* is the same on all "
        "500, without a guard. FT-SAM: Zhu et al. 2023; i-bau: Zeng et al. 2022; anp: Wu and Wang 2021; npd: Zhu et "
        "al. 2023. Steps and batches are fewer and smaller than the papers'. The settings that were tried were judged "
        "on the defender's 500 other pictures, clean and triggered, not on the test split.",
        table(tables.WITHOUT_TRIGGER, [row for row in repairs if row.model in COMPARED and row.method in methods]),
    ]
    write_page(out / "README.md", parts)
    return [f"{each.what}: {each.verdict}" for each in found]


def _pictures(out: Path, folder: str, keys: Sequence[Sequence[object]]) -> str:
    """Return Markdown images of the existing pictures among `keys`."""
    names = [plots.file_name(key) for key in keys]
    return "\n".join(f"![{name}]({folder}/{name}.png)" for name in names if (out / folder / f"{name}.png").is_file())
