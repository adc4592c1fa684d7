"""The bundle of a taught classifier, with STRIP calibrated on the labelled pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from infra.bundling.bundle_request import PrintLine
from infra.bundling.folder import appearing
from infra.bundling.gallery import fit_to_network
from infra.bundling.networks import WEIGHTS
from infra.bundling.strip_table import LEAST_PICTURES, calibrate_strip
from lab.data import LabelledPictures
from lab.drift import DRIFT_FILE, write_drift
from lab.teach.labelled import Labelled
from lab.teach.report import Held
from lab.teach.train import TaughtNetwork
from lab.training.bundle import save_network, to_toml
from processors.bundle import Bundle, BundleSettings, load_bundle
from processors.networks.taught import Taught
from processors.pipeline import Pipeline
from processors.stages.discrepancy import GRID, LEAST_ROWS, MOST_ROWS, PICTURE_FEATURES, features_of

REPORT: Final = "report.json"


def write_taught(
    taught: TaughtNetwork,
    general: Bundle,
    labelled: Labelled,
    out: Path,
    *,
    name: str,
    version: str,
    strip_s: float,
    print_line: PrintLine,
) -> Bundle:
    """Write the bundle and the report into the folder `out`, which does not exist yet or is empty.

    With fewer than `LEAST_PICTURES` labels, or no time, the bundle has no `[strip]` and no `[drift]` table. It also has
    no `[drift]` table with fewer than `LEAST_ROWS` held-out verdicts. Raises ConfigError for another folder,
    BundleError for a network that does not run.
    """
    settings = BundleSettings(
        name=name, version=version, format="safetensors", weights=WEIGHTS,
        factory=f"{Taught.__module__}:{Taught.__name__}",
        factory_arguments=taught.choice.arguments(len(labelled.classes)), classes=labelled.classes,
        unsure_below=taught.held.unsure_below,
        input=general.settings.input.model_copy(update={"policy": "resize"}),
    )  # fmt: skip
    with appearing(out) as folder:
        save_network(taught.network, folder / WEIGHTS, "safetensors")
        text = to_toml(settings.model_dump(exclude_none=True))
        (folder / "model.toml").write_text(text, encoding="utf-8")
        (folder / REPORT).write_text(json.dumps(taught.document(), indent=1) + "\n", encoding="utf-8")
        bundle = load_bundle(folder, torch.device("cpu"))
        if len(labelled) < LEAST_PICTURES or not strip_s:
            print_line(f"no [strip] table: expected at least {LEAST_PICTURES} labels and some seconds for it")
        else:
            pipeline = Pipeline(bundle)
            images = np.concatenate([fit_to_network(pipeline, picture) for picture in labelled.pictures])
            gallery = LabelledPictures("labels", images, labelled.labels)
            _write_drift(folder, bundle, gallery, taught.held, labelled.files, print_line)
            strip, used = calibrate_strip(folder, bundle, gallery, strip_s)
            print_line(
                f"STRIP: suspect below {strip.threshold_bits:.3f} bits, {strip.frr:.1%} of clean frames or less, by "
                f"{used} pictures"
            )
    return load_bundle(out, torch.device("cpu"))


def _write_drift(
    folder: Path, bundle: Bundle, gallery: LabelledPictures, held: Held, files: Sequence[str], print_line: PrintLine
) -> None:
    """Write the drift reference of the held-out pictures; `files` are the names of those in `gallery`.

    The network is surer of the pictures that trained it than of live frames. Therefore its own answers are replaced by
    held-out ones.
    """
    if len(held.files) < LEAST_ROWS:
        print_line(f"no [drift] table: expected at least {LEAST_ROWS} held-out labels, got {len(held.files)}")
        return
    place_of = {file: place for place, file in enumerate(files)}
    chosen = np.linspace(0, len(held.files) - 1, min(len(held.files), MOST_ROWS)).astype(np.intp)
    write_drift(folder, bundle, gallery.take(np.array([place_of[held.files[number]] for number in chosen])))
    rows = np.load(folder / DRIFT_FILE)
    logits = torch.from_numpy(held.probabilities[chosen]).log()
    blank = torch.zeros(len(chosen), 3, GRID, GRID)
    rows[:, PICTURE_FEATURES:] = features_of(blank, logits).answers.numpy()
    np.save(folder / DRIFT_FILE, rows)
