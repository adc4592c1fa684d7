"""The paired table: both sides classify the same attacked pictures, and a picture must withstand all attacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from lab.attacks import to_8_bits
from lab.cache import Arrays, Cache
from lab.data import LabelledPictures, to_frames
from lab.experiments.hardening import experiment, paired
from lab.experiments.hardening.paired import Setting, measured, packed, standing, unpacked
from lab.experiments.hardening.paired_report import LEVEL, PRIMARY, Against, adjusted, made, paired_page, summaries
from lab.experiments.hardening.rows import PairedRow
from lab.experiments.harness.plan import Workplace
from lab.red_team import plan
from lab.red_team.attack import adversarial
from processors.bundle import Bundle, load_bundle
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")
EPS = 0.02


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_packed_answers_are_unpacked_unchanged(right: list[bool]) -> None:
    found = unpacked(packed(np.array(right)), len(right))
    assert found.tolist() == right
    # Oracle: the digits are the binary number, padded with zeros on the right.
    number = "".join("01"[each] for each in right).ljust(-len(right) // 8 * -8, "0")
    assert packed(np.array(right)) == f"{int(number, 2):0{len(number) // 4}x}"


def row(
    bare: list[bool], once: list[bool], always: list[bool], *, attack: str = "eot-pgd", made_on: str = "bare"
) -> PairedRow:
    digits = [packed(np.array(each)) for each in (bare, once, always)]
    return PairedRow("net@1+a", 8 / 255, made_on, attack, len(bare), 10, digits[0], digits[1], digits[2], 1.0)


def drawn(seed: int, count: int = 60) -> tuple[list[bool], list[bool], list[bool]]:
    rng = np.random.default_rng(seed)
    once = rng.random(count) < 0.6
    return (rng.random(count) < 0.6).tolist(), once.tolist(), (once & (rng.random(count) < 0.8)).tolist()


def test_a_picture_counts_if_it_withstands_every_attack() -> None:
    each = [drawn(seed) for seed in range(3)]
    found = standing([row(*sides) for sides in each])
    for number, side in enumerate((found.bare, found.once, found.always)):
        assert side.tolist() == [all(sides[number][place] for sides in each) for place in range(60)]
    with pytest.raises(ValueError, match="one number of pictures"):
        standing([row(*drawn(0)), row(*drawn(0, 50))])


def test_the_gain_is_paired_and_its_p_value_is_that_of_mcnemars_test() -> None:
    against = Against("some", (row(*drawn(1)), row(*drawn(2))))
    left = against.left
    wins, losses = int((left.once & ~left.bare).sum()), int((~left.once & left.bare).sum())
    assert against.gain("once").value == pytest.approx((wins - losses) / 60)
    assert against.gain("once").value == pytest.approx(against.share("once").value - against.share("bare").value)
    assert against.p("once") == pytest.approx(binomtest(wins, wins + losses).pvalue)


def test_the_detectable_gain_has_the_power_of_the_test() -> None:
    sides = drawn(3, 40)
    against = Against("some", (row(*sides),))
    losses = int((~against.left.once & against.left.bare).sum()) / 40
    gain = against.detectable("once")
    assert against.detectable("once", 0.0) < against.detectable("once", 0.1)

    def power(more: float) -> float:
        chances = [more, losses, 1 - more - losses]
        return sum(
            float(multinomial.pmf([won, lost, 40 - won - lost], 40, chances))
            for won in range(41) for lost in range(41 - won)
            if won > lost and binomtest(won, won + lost).pvalue < LEVEL
        )  # fmt: skip

    assert power(losses + gain) >= 0.8 > power(losses + gain - 0.002)


def test_the_strongest_attack_of_a_side_can_be_auto_attack() -> None:
    rows = (
        row([True] * 9, [True] * 9, [True] * 9, attack="clean"),
        row([False] * 4 + [True] * 5, [True] * 9, [True] * 9),
        row([True] * 9, [False] * 6 + [True] * 3, [False] * 6 + [True] * 3, attack="auto-attack", made_on="fleet"),
    )
    against = Against("all", rows)
    assert made(against.strongest("bare")) == "eot-pgd, made on the bare network"
    assert made(against.strongest("always")) == "auto-attack (for random defences), made through the drop"
    assert made(Against("none", rows[:1]).strongest("bare")) == "–"


def test_each_set_of_attacks_includes_the_clean_answers_and_the_worst_case_includes_all() -> None:
    made = ((4, "clean", "bare"), (5, "eot-pgd", "bare"), (6, "square", "fleet"))
    clean, bare, behind = (row(*drawn(seed), attack=name, made_on=side) for seed, name, side in made)
    other = replace(clean, network="net@2+b")
    [found] = summaries([clean, bare, other, behind])
    assert found.aware is not None
    sets = [each.rows for each in found.lines]
    assert sets == [(clean,), (clean, bare), (clean, behind), (clean, bare, behind)]
    [without] = summaries([clean, bare])
    assert without.aware is None
    page = "\n".join(paired_page([clean, bare, behind], [], [], ["paired/later"], "the command"))
    assert "Not measured yet: paired/later" in page.replace("`", "")


def test_the_page_warns_of_attacks_made_on_one_side_alone() -> None:
    made = ((4, "clean", "bare"), (5, "eot-pgd", "bare"), (6, "targeted", "bare"), (7, "eot-pgd", "fleet"))
    rows = [row(*drawn(seed), attack=name, made_on=side) for seed, name, side in made]
    warning = "Made on one side alone: `targeted` on the bare network."
    assert warning in "\n".join(paired_page(rows, [], [], [], "the command"))
    rows.append(row(*drawn(8), attack="square", made_on="fleet"))
    assert f"{warning[:-1]}; `square` through the drop." in "\n".join(paired_page(rows, [], [], [], "the command"))
    rows += [row(*drawn(9), attack="targeted", made_on="fleet"), row(*drawn(10), attack="square")]
    assert "one side alone" not in "\n".join(paired_page(rows, [], [], [], "the command"))


def test_every_p_value_except_the_primary_one_is_adjusted_for_all_tables_of_the_page() -> None:
    made = ((4, "clean", "bare"), (5, "eot-pgd", "bare"), (6, "square", "fleet"))
    rows = [row(*drawn(seed), attack=name, made_on=side) for seed, name, side in made]
    rows += [replace(each, network="net@2+b") for each in rows]
    found = adjusted(summaries(rows))
    assert len(found) == 2 * (4 * 2 - 1)
    page = "\n".join(paired_page(rows, [], [], [], "the command"))
    assert page.count("Holm p = ") == len(found)
    assert page.count(f"p = {summaries(rows)[0].worst.p(PRIMARY):.2g}, primary") == 2
    smallest = min(found, key=lambda each: each[0].p(each[1]))
    assert found[smallest] == pytest.approx(min(1, len(found) * smallest[0].p(smallest[1])))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "colours"), CPU)


def test_an_attack_is_submitted_to_both_sides_and_a_run_resumes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "STEPS", 6)
    monkeypatch.setattr(paired, "CHUNK", 7)
    pictures = coloured_pictures(12, lead=6)
    cache = Cache(tmp_path / "runs")
    clean = measured(Setting("colours", EPS, "bare", "clean"), bundle, pictures, cache)
    setting = Setting("colours", EPS, "bare", "eot-pgd")
    found = measured(setting, bundle, pictures, cache)
    assert (found.pictures, found.submissions, found.attack) == (12, 10, "eot-pgd")
    assert unpacked(clean.bare, 12).all()
    assert not unpacked(found.bare, 12).any()
    # A picture that one submission breaks is also broken by ten.
    assert not (unpacked(found.always, 12) & ~unpacked(found.once, 12)).any()

    def never(*arguments: object) -> Arrays:
        raise AssertionError

    monkeypatch.setattr(paired, "judged", never)
    assert measured(setting, bundle, pictures, cache) == found


def test_only_the_checkpoints_of_the_row_of_hours_stand_beside_the_rows(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folders = Workplace(tmp_path / "results", tmp_path / "runs", tmp_path), list[Path]()

    def noted(setting: Setting, bundle: Bundle, pictures: LabelledPictures, cache: Cache) -> None:
        folders.append(cache.folder)

    monkeypatch.setattr(experiment, "measured", noted)
    monkeypatch.setattr(experiment, "_loaded", lambda _: bundle)
    monkeypatch.setattr(experiment, "read_cifar10_test", lambda *_: coloured_pictures(1))
    cells = [cell for cell in experiment.plan(place).cells if cell.name.endswith("/bare/auto-attack")]
    for cell in cells:
        cell.measure()
    assert [cell.name.partition("/")[0] for cell in cells] == ["paired", "paired", "transferred"]
    usual = tmp_path / "runs" / "hardening"
    assert folders == [usual, usual, tmp_path / "results" / "hardening" / "checkpoints"]


def test_attacks_through_the_drop_and_on_the_bare_network_make_different_pictures(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "STEPS", 3)
    monkeypatch.setattr(plan, "SAMPLES", 2)
    pictures, seen = coloured_pictures(6, lead=6), list[torch.Tensor]()

    def recorded_adversarial(*arguments: object) -> torch.Tensor:
        seen.append(adversarial(*arguments))  # type: ignore[arg-type]  # the arguments of the original
        return seen[-1]

    monkeypatch.setattr(paired, "adversarial", recorded_adversarial)
    for side in ("bare", "fleet"):
        paired.judged(Setting("colours", EPS, side, "eot-pgd"), bundle, pictures, 0)
    frames = to_frames(pictures.images, CPU)
    assert all((each - frames).abs().max() <= EPS + 1e-6 for each in seen)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], to_8_bits(seen[0]))


def test_a_picture_that_is_wrong_when_clean_is_not_attacked(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = coloured_pictures(6, lead=6)
    labels = pictures.labels.copy()
    labels[2] = (labels[2] + 1) % 3
    shapes = list[int]()

    def recorded_adversarial(
        effort: object, attacked: object, frames: torch.Tensor, *arguments: object
    ) -> torch.Tensor:
        shapes.append(len(frames))
        return frames

    monkeypatch.setattr(paired, "adversarial", recorded_adversarial)
    wrong = LabelledPictures("one is wrong", pictures.images, labels)
    found = paired.judged(Setting("colours", EPS, "bare", "eot-pgd"), bundle, wrong, 0)
    assert shapes == [5]
    assert found["bare"].tolist() == [True, True, False, True, True, True]
