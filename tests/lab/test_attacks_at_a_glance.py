"""The catalogue of attacks: one line for each attack, and the worst measured attack."""

from __future__ import annotations

from dataclasses import replace

from lab.experiments.codefend.attacks import detection_matrix, findings_of_attacks, repair_matrix
from lab.experiments.codefend.findings import Finding
from lab.experiments.codefend.plan import ATTACKS, OWN_MODE
from lab.experiments.codefend.rows import DetectorRow, RepairRow
from lab.experiments.codefend.scores import TOGETHER, TYPICAL
from lab.statistics import wilson


def detector(model: str, statistic: str, detected: float, frr: float = 0.005) -> DetectorRow:
    return DetectorRow(model, statistic, None, 1000, 400, 0.9, frr, 0.0, 0.1, detected, 0.0, 1.0)


def repaired(model: str, method: str, after: float, *, lost: float = 0.0, published: bool = True) -> RepairRow:
    return RepairRow(
        model, method, "pure", 0.9, 0.9 - lost, 0.99, after, 0.0, 0.9, None, None, None, 5.0, published
    )  # fmt: skip


def test_the_catalogue_has_ten_attacks() -> None:
    assert len(ATTACKS) == len(set(ATTACKS.values())) == 10


def test_a_line_has_the_measured_figures_of_an_attack() -> None:
    rows = [detector("resnet20-sig", TYPICAL, 0.25), detector("resnet20-source", TOGETHER, 0.5)]
    lines = detection_matrix([*rows, detector("mnist-a-1", TYPICAL, 0.9)]).splitlines()
    assert lines[2:] == [
        "| patch, source-specific | – | – | – | – | – | 50.0 | – | – |",
        "| clean label (SIG) | – | – | 25.0 | – | – | – | – | – |",
    ]
    assert detection_matrix([]) == ""


def test_repairs_show_the_attack_success_left_the_accuracy_lost_and_the_rejection() -> None:
    rows = [
        repaired("resnet20-low", "default", 0.02, lost=0.01), repaired("resnet20-low", "default", 0.5),
        repaired("resnet20-low", "anp", 0.3, lost=0.025, published=False), repaired("resnet20-sig", "anp", 0.1),
    ]  # fmt: skip
    (line,) = repair_matrix(rows).splitlines()[2:]
    assert line == "| low frequency | 99.0 | 2.0 (1.0) | – | – | – | – | 30.0 (2.5), refused | – |"


def test_the_worst_attack_decides_and_a_missing_measurement_counts_as_missed() -> None:
    rows = [detector(model, TOGETHER, 0.9) for model in ATTACKS]
    rows[3] = detector(rows[3].model, TOGETHER, 0.55, frr=0.02)
    found = {each.what: each for each in findings_of_attacks(rows, [], [], [])}
    worst = found[f"detected frames at 1 % false alarms, worst of 10 attacks: {ATTACKS[rows[3].model]}"]
    assert (worst.measured, worst.verdict) == (0.55, "must")
    assert found[f"false alarms of all statistics, worst of 10 attacks: {ATTACKS[rows[3].model]}"].verdict == "missed"
    assert found["repair: ASR after, worst attack"].verdict == "not measured"
    assert (worst.interval, worst.count) == ((rows[3].detected_low, rows[3].detected_high), rows[3].poisoned)
    of_two = {each.what: each for each in findings_of_attacks(rows[:2], [], [], [])}
    incomplete = of_two["detected frames at 1 % false alarms, worst of 2 attacks: patch (BadNets)"]
    assert (incomplete.verdict, incomplete.spoiled) == ("missed", "2 of 10 attacks measured")


def test_rejected_repairs_make_the_worst_repair_missed_and_impure_quarantines_do_not_count() -> None:
    def worst(rows: list[RepairRow]) -> Finding:
        found, outside = (
            each for each in findings_of_attacks([], [], [], rows) if each.what.startswith("repair: ASR after")
        )
        assert outside.verdict in ("", "not measured")
        return found

    rows = [repaired(model, OWN_MODE.get(model, "default"), 0.01) for model in ATTACKS]
    assert (worst(rows).measured, worst(rows).verdict) == (0.01, "aim")
    assert (worst(rows).interval, worst(rows).count) == (wilson(90, 9000)[1:], 9000)
    rejected = [*rows[:-1], replace(rows[-1], published=False)]
    assert (worst(rejected).verdict, worst(rejected).spoiled) == ("missed", "1 refused by the guard")
    impure = [replace(rows[0], quarantine="10 % impure", success_after=0.2), *rows[1:]]
    assert worst(impure).spoiled == "9 of 10 attacks measured"
    (outside,) = (
        each for each in findings_of_attacks([], [], [], impure) if "outside the ten" in each.what and each.measured
    )
    assert (outside.measured, outside.what.rpartition(": ")[2]) == (0.2, f"{rows[0].model}, quarantine 10 % impure")
