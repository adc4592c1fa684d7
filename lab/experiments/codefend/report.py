"""The Markdown of the experiment, made from its CSV files alone."""

from __future__ import annotations

import json
from pathlib import Path

from lab.experiments.codefend import tables
from lab.experiments.codefend.findings import Finding, findings
from lab.experiments.codefend.plan import MAIN
from lab.experiments.codefend.rows import DetectionRow, ModelRow, RepairRow
from lab.experiments.csv_rows import read_rows

SETTINGS = "settings.json"


def read_findings(out: Path) -> list[Finding]:
    """The figures asked for, from the CSV files in `out`."""
    return findings(
        read_rows(out / "models.csv", ModelRow),
        read_rows(out / "detection.csv", DetectionRow),
        read_rows(out / "repair.csv", RepairRow),
    )


def write_report(out: Path) -> list[str]:
    """Write README.md into `out`; the verdicts, a line each."""
    command = json.loads((out / SETTINGS).read_text(encoding="utf-8"))["command"]
    models = read_rows(out / "models.csv", ModelRow)
    detections = read_rows(out / "detection.csv", DetectionRow)
    repairs = read_rows(out / "repair.csv", RepairRow)
    found = findings(models, detections, repairs)
    parts = [
        "# CoDefend: detection and repair of backdoored models",
        f"Made by `{command}`; the sick models by `python -m lab.backdoor.train`, see `lab/backdoor/catalogue.py`.",
        "CA: clean accuracy on the test split. ASR: share of stamped test pictures of other classes that go to the "
        "target. Recovered: share of them that get their true class. Floor: what the clean network of the same kind "
        "sends to the target. FRR, FAR: clean frames flagged, stamped frames not flagged. The defender has 500 clean "
        "pictures and what STRIP flags of about 500 stamped ones; networks on CIFAR-10 were poisoned by continuing the "
        "training of a clean one, those on MNIST and GTSRB from nothing. GTSRB is a subset: three quarters of "
        "the test pictures in it judge. CIFAR-100: not measured, its data is not there.",
        "## Figures asked for",
        tables.findings_table(found),
        "## The sick models (the paper's Table 1 and Figure 5)",
        tables.models_table(models),
        "![triggers](triggers.png)",
        "## Detection (Table 3, Figure 6)",
        tables.detection_table(detections),
        "The paper's, on 500 + 500 pictures:",
        tables.published_detection(),
        "![entropies](entropies.png)",
        "## Repair (Table 4, Figures 7 and 8)",
        tables.repair_table(repairs),
        "The paper's:",
        tables.published_repair(),
        "![generated](generated.png)",
        f"## Beside other methods (Table 5): {MAIN}",
        "Printed figures are for the paper's own network and trigger C; those measured here share the sick model and "
        "the 500 clean pictures. The best fine-tuning is the one of the grid with the least ASR that loses at most 2 "
        "points, chosen on the test split, in its favour.",
        tables.comparison_table(repairs, MAIN),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (out / "README.md").write_text(text, encoding="utf-8")
    return [f"{each.what}: {each.verdict}" for each in found]
