"""All statistics of probes combined: the tails of clean pictures, the p-value's threshold and the bundle's table."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.stats import beta, norm
from torch import nn

from lab.data import LabelledPictures, to_frames
from lab.strip.calibrate import overlay_choice, threshold_of
from lab.strip.combined import EVERY, STEEPEST, TAIL, Statistics, clean_tail, combined, fit, flagged
from lab.strip.disagreement import agreements
from lab.strip.measure import check
from lab.strip.table import calibrate_bundle
from lab.strip.typicality import fitted
from lab.training.successor import write_successor
from processors.bundle import CombinedThreshold, StripSettings, load_bundle, read_settings
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, LAYER_DISAGREEMENT, SCALED_NORMS, TYPICALITY
from processors.pipeline import Pipeline
from processors.stages.rarity import LEAST_VALUE, MOST_OCTAVES
from schemas.errors import ConfigError
from tests.lab import nonrobust_network
from tests.lab.colour_classifier import coloured_pictures, convert_to_onnx
from tests.lab.colour_classifier import write_bundle as write_colours
from tests.lab.nonrobust_network import pictures, write_nonrobust_bundle

CPU = torch.device("cpu")
STATISTICS = [ENTROPY, DISAGREEMENT, TYPICALITY, SCALED_NORMS]
"""The statistics of the small network, which has one batch norm."""
Values = Mapping[str, NDArray[np.float64]]


def test_quantiles_halve_the_clean_values_and_the_power_is_hills_estimate() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 642.0))
    tail = clean_tail(values)
    assert tail.quantiles == pytest.approx([641, 321, 161, 81, 41, 21])
    # The likelihood of a power law below 21 is greatest at n ÷ Σ log(21 / x).
    assert tail.power == pytest.approx(20 / (20 * math.log(21) - math.lgamma(21)))
    for octaves in range(1, 6):
        assert (tail.rarity(values) >= octaves - 1e-6).mean() == pytest.approx(2.0**-octaves, abs=2 / 641)


@pytest.mark.parametrize(("count", "quantiles"), [(20, 1), (39, 1), (40, 2), (79, 2), (80, 3), (1280, 7)])
def test_each_quantile_has_at_least_twenty_pictures_below_it(count: int, quantiles: int) -> None:
    assert len(clean_tail(np.arange(1.0, count + 1)).quantiles) == quantiles


def test_few_values_have_one_quantile_and_a_power_fitted_to_all() -> None:
    values = np.random.default_rng(1).random(TAIL + 5) + 0.1
    tail = clean_tail(values)
    assert tail.quantiles == [values.max()]
    assert tail.power == pytest.approx(len(values) / sum(math.log(values.max() / each) for each in values))


@pytest.mark.parametrize("power", [0.5, 1.0, 4.0])
def test_the_power_of_a_power_law_is_found(power: float) -> None:
    rng = np.random.default_rng(2)
    slopes = [1 / clean_tail(rng.random(2000) ** (1 / power)).power for _ in range(100)]
    # Each slope is the mean of 31 exponential variables.
    assert np.mean(slopes) * power == pytest.approx(1, abs=4 / math.sqrt(31 * 100))


@pytest.mark.parametrize("value", [1.0, 0.3, 0.0])
def test_a_value_that_all_clean_pictures_share_is_not_rare(value: float) -> None:
    tail = clean_tail(np.full(640, value))
    assert len(set(tail.quantiles)) == 6
    assert tail.power == STEEPEST
    assert tail.rarity(np.array([value, 2.0])).tolist() == [0, 0]
    if value:
        assert tail.rarity(np.array([value / 2])).tolist() == [MOST_OCTAVES]


def test_the_rarity_below_a_frequent_value_follows_from_the_share_below_it() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([np.full(400, 1.0), rng.random(240)])
    tail = clean_tail(values)
    assert tail.rarity(np.array([1.0])).tolist() == [0]
    assert float(tail.rarity(np.array([0.999999]))[0]) == pytest.approx(math.log2(640 / 240), abs=1)


def test_values_of_zero_stay_comparable() -> None:
    tail = clean_tail(np.concatenate([np.zeros(30), np.arange(1.0, 611.0)]))
    assert tail.quantiles[-1] == pytest.approx(LEAST_VALUE)
    assert tail.quantiles[-1] > 0
    assert float(tail.rarity(np.array([0.0]))[0]) == pytest.approx(5, abs=1e-6)


NAMES = (ENTROPY, DISAGREEMENT, TYPICALITY, LAYER_DISAGREEMENT, SCALED_NORMS)


def independent(count: int, rng: np.random.Generator) -> Values:
    """Return values of different distributions."""
    return {
        ENTROPY: rng.gamma(4, 0.3, count), DISAGREEMENT: rng.beta(9, 1, count),
        TYPICALITY: rng.random(count), LAYER_DISAGREEMENT: rng.gamma(9, 0.2, count),
        SCALED_NORMS: np.exp2(rng.normal(60, 3, count)),
    }  # fmt: skip


def dependent(count: int, rng: np.random.Generator) -> Values:
    """Return values that mostly follow one hidden cause."""
    cause = rng.normal(0, 1, (count, 1))
    normal = 0.95 * cause + math.sqrt(1 - 0.95**2) * rng.normal(0, 1, (count, len(NAMES)))
    shares = norm.cdf(normal)
    return {name: shares[:, place] ** (place + 1) for place, name in enumerate(NAMES)}


def two_statistics(count: int, rng: np.random.Generator) -> Values:
    """Return values of a network that allows two statistics."""
    every = independent(count, rng)
    return {ENTROPY: every[ENTROPY], DISAGREEMENT: every[DISAGREEMENT]}


def combined_table(values: Values, frr: float) -> CombinedThreshold:
    """Return the table, with one amplified norm if there is such a statistic."""
    return combined(values, frr, 1 if SCALED_NORMS in values else None)


@pytest.mark.parametrize("draw", [independent, dependent, two_statistics])
@pytest.mark.parametrize("frr", [0.01, 0.05])
def test_clean_pictures_are_flagged_no_more_often_than_the_given_rate(draw: object, frr: float) -> None:
    assert callable(draw)
    rng, repetitions, known, fresh = np.random.default_rng(4), 30, 500, 4000
    realised = []
    for _ in range(repetitions):
        found, others = combined_table(draw(known, rng), frr), draw(fresh, rng)
        realised.append((found.judge(others).values < found.threshold).mean())
    # The threshold is an order statistic of the known pictures. The flagged share is counted on fresh ones.
    error = math.sqrt(frr * (1 - frr) * (1 / known + 1 / fresh) / repetitions)
    assert frr / 3 < np.mean(realised) < frr + 3 * error


@pytest.mark.parametrize(("known", "frr"), [(500, 0.01), (900, 0.01), (300, 0.05)])
def test_the_threshold_is_the_order_statistic_of_the_tolerance_limit(known: int, frr: float) -> None:
    # The share below the order statistic k of n is distributed as Beta(k + 1, n − k).
    def exceeded(below: int) -> float:
        return float(beta(below + 1, known - below).sf(frr))

    below = flagged(known, frr)
    assert exceeded(below) <= 0.1 < exceeded(below + 1)
    rng = np.random.default_rng(8)
    values = two_statistics(known, rng)
    found = combined_table(values, frr)
    assert (found.judge(values).values < found.threshold).sum() == below


def test_the_threshold_of_few_pictures_flags_none_of_them() -> None:
    assert [flagged(count, 0.01) for count in (20, 229)] == [0, 0]


def test_weak_evidence_of_two_statistics_adds_up() -> None:
    known = two_statistics(4000, np.random.default_rng(5))
    found = combined_table(known, 0.01)
    low, usual = ({name: np.quantile(each, share) for name, each in known.items()} for share in (0.02, 0.5))
    assert all(low[name] > threshold_of(known[name], 0.01) for name in known)
    frames = [low, {**low, ENTROPY: usual[ENTROPY]}, {**low, DISAGREEMENT: usual[DISAGREEMENT]}]
    judged = found.judge({name: np.array([each[name] for each in frames]) for name in known}).values
    assert (judged < found.threshold).tolist() == [True, False, False]


def test_the_table_has_tails_only_for_the_given_statistics() -> None:
    every, two = (combined_table(draw(200, np.random.default_rng(6)), 0.03) for draw in (independent, two_statistics))
    assert (list(every.tails), every.norms, every.frr) == (list(EVERY), 1, 0.03)
    assert (list(two.tails), two.norms) == ([ENTROPY, DISAGREEMENT], None)
    assert every.entropy == clean_tail(independent(200, np.random.default_rng(6))[ENTROPY])


def test_too_few_pictures_are_rejected() -> None:
    rng = np.random.default_rng(7)
    combined_table(two_statistics(TAIL, rng), 0.05)
    with pytest.raises(ConfigError, match=r"^clean pictures: expected at least 20 besides .*, got 19\. Give more\.$"):
        combined_table(two_statistics(TAIL - 1, rng), 0.05)


def loaded(folder: Path) -> tuple[Pipeline, StripSettings, CombinedThreshold]:
    """Return a bundle's chain and tables."""
    bundle = load_bundle(folder, CPU)
    strip = bundle.settings.strip
    assert strip is not None
    assert strip.combined is not None
    return Pipeline(bundle), strip, strip.combined


@pytest.fixture
def folder(combined_bundle: Path, tmp_path: Path) -> Path:
    """Return a copy of the calibrated bundle."""
    return Path(shutil.copytree(combined_bundle, tmp_path / "nonrobust"))


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_a_bundle_with_batch_norms_has_all_statistics_without_earlier_layers(combined_bundle: Path) -> None:
    pipeline, strip, found = loaded(combined_bundle)
    assert (list(found.tails), found.norms, found.frr, strip.frr) == (STATISTICS, 1, 0.05, 0.05)
    assert strip.typicality is not None
    assert [file.name for file in combined_bundle.glob("features*")] == [strip.typicality.features]
    assert pipeline.bundle.features is not None
    assert pipeline.bundle.features.layers == ("1",)
    assert pipeline.bundle.scaled is not None
    assert pipeline.bundle.scaled.network is pipeline.bundle.network


@pytest.mark.usefixtures("few_overlays")
def test_a_second_calibration_replaces_all_tables_and_files(folder: Path) -> None:
    other = calibrate_bundle(folder, pictures(200, 6), frr=0.1, combined=True, device=CPU)
    assert read_settings(folder).strip == other
    assert other.combined is not None
    assert other.combined.frr == 0.1
    assert other.typicality is not None
    assert [file.name for file in folder.glob("features*")] == [other.typicality.features]
    assert (folder / "model.toml").read_text().count("[strip.combined]") == 1
    alone = calibrate_bundle(folder, pictures(60, 7), frr=0.05, device=CPU)
    assert (alone.combined, alone.typicality) == (None, None)
    assert read_settings(folder).strip == alone
    assert sorted(files(folder)) == ["model.toml", alone.overlays, "weights.safetensors"]
    bundle = load_bundle(folder, CPU)
    assert (bundle.features, bundle.scaled) == (None, None)


@pytest.mark.usefixtures("few_overlays")
def test_a_rejected_calibration_changes_no_file(folder: Path) -> None:
    before = files(folder)
    for few, frr, complaint in (
        (29, 0.1, "expected at least 20 besides the overlays, got 19"),
        (14, 0.25, "same label"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            calibrate_bundle(folder, pictures(few, 6), frr=frr, combined=True, device=CPU)
        assert "\n" not in str(caught.value)
        assert files(folder) == before


def dotted(count: int, seed: int) -> LabelledPictures:
    """Return pictures with dots in blue, the colour that the network uses."""
    found = pictures(count, seed)
    found.images[:, ::2, ::2, 2] = 255
    return found


def test_unusual_pictures_are_flagged_and_few_clean_ones_are(combined_bundle: Path) -> None:
    pipeline, _, found = loaded(combined_bundle)
    measured = [Statistics.of_bundle(pipeline).measured(each) for each in (pictures(200, 8), dotted(20, 9))]
    assert all(list(each) == STATISTICS for each in measured)
    clean, attacked = ((found.judge(each).values < found.threshold).mean() for each in measured)
    # Three standard deviations, as the threshold comes from 290 other pictures.
    assert clean < 0.05 + 3 * math.sqrt(0.05 * 0.95 * (1 / 200 + 1 / 290))
    assert attacked == 1


def test_live_p_values_equal_those_of_the_lab(combined_bundle: Path) -> None:
    pipeline, _, found = loaded(combined_bundle)
    some = pictures(12, 10)
    bits = check(pipeline, some, sequential=True).bits
    expected = found.judge(Statistics.of_bundle(pipeline).measured(some, known={ENTROPY: bits}))
    masks = np.random.default_rng(3).integers(2**32, size=(12, 2), dtype=np.uint64)
    live = pipeline.p_values(to_frames(some.images, CPU), bits, masks)
    np.testing.assert_allclose(live.values, expected.values, rtol=0.01)
    assert len(set(live.values.tolist())) > 6


def test_a_known_statistic_is_not_measured_again(combined_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.strip.combined.check", None)
    pipeline = loaded(combined_bundle)[0]
    bits, counted = np.arange(6.0), list[int]()
    found = Statistics.of_bundle(pipeline).measured(pictures(6, 4), counted.append, {ENTROPY: bits})
    assert found[ENTROPY] is bits
    assert sum(counted) == 3 * 6


def test_overlays_are_left_out_of_the_tails(combined_bundle: Path) -> None:
    pipeline, strip, found = loaded(combined_bundle)
    clean = pictures(300, 5)  # the pictures of the calibration
    overlays = np.sort(overlay_choice(clean.labels, nonrobust_network.CLASSES, strip.frr)[:10])
    fitted_tails = fit(pipeline, clean, overlays)
    others = clean.take(np.setdiff1d(np.arange(300), overlays))
    assert {len(values) for values in fitted_tails.known.values()} == {290}
    np.testing.assert_allclose(fitted_tails.known[DISAGREEMENT], agreements(pipeline, others), rtol=1e-6)
    np.testing.assert_allclose(fitted_tails.known[ENTROPY], check(pipeline, others, sequential=True).bits, atol=1e-6)
    every = fitted(pipeline, clean)
    assert every is not None
    np.testing.assert_allclose(fitted_tails.known[TYPICALITY], np.delete(every.values[TYPICALITY], overlays), rtol=1e-6)
    for name, values in fitted_tails.known.items():
        assert found.tails[name].quantiles == pytest.approx(clean_tail(values).quantiles, rel=1e-3)


def without_norms() -> nn.Module:
    """Return a network of two convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


@pytest.mark.usefixtures("few_overlays")
def test_a_network_without_batch_norms_lacks_the_statistic_of_scaled_norms(tmp_path: Path) -> None:
    folder = write_nonrobust_bundle(tmp_path / "plain")
    torch.manual_seed(0)
    save_file(without_norms().state_dict(), folder / "weights.safetensors")
    text = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text(
        text.replace("tests.lab.nonrobust_network:network", "tests.lab.test_combined:without_norms")
    )
    strip = calibrate_bundle(folder, pictures(80, 5), frr=0.05, combined=True, device=CPU)
    assert read_settings(folder).strip == strip
    assert strip.combined is not None
    assert (list(strip.combined.tails), strip.combined.norms) == ([ENTROPY, DISAGREEMENT, TYPICALITY], None)
    bundle = load_bundle(folder, CPU)
    assert bundle.scaled is None
    assert bundle.features is not None
    assert bundle.features.layers == ("0", "2")


@pytest.mark.usefixtures("few_overlays")
@pytest.mark.parametrize("onnx", [True, False])
def test_a_network_with_hidden_layers_has_entropy_and_disagreement_alone(tmp_path: Path, onnx: bool) -> None:
    folder = write_colours(tmp_path / "colours")
    if onnx:
        convert_to_onnx(folder)
    strip = calibrate_bundle(folder, coloured_pictures(60, lead=30), frr=0.05, combined=True, device=CPU)
    assert read_settings(folder).strip == strip
    assert strip.combined is not None
    assert (list(strip.combined.tails), strip.combined.norms) == ([ENTROPY, DISAGREEMENT], None)
    assert strip.typicality is None
    bundle = load_bundle(folder, CPU)
    assert (bundle.features, bundle.scaled) == (None, None)
    assert list(Statistics.of_bundle(Pipeline(bundle)).measured(coloured_pictures(3))) == [ENTROPY, DISAGREEMENT]


def changed_network(source: Path) -> nn.Module:
    """Return the bundle's network with other weights."""
    network = nonrobust_network.network()
    network.load_state_dict(load_file(source / "weights.safetensors"))
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    return network


@pytest.mark.usefixtures("few_overlays")
def test_a_successor_gets_new_tails_and_features(folder: Path, tmp_path: Path) -> None:
    out, (_, old_strip, table) = tmp_path / "successor", loaded(folder)
    write_successor(out, folder, changed_network(folder), pictures(200, 6), "tuned")
    pipeline, strip, found = loaded(out)
    assert (list(found.tails), found.frr, strip.frr) == (STATISTICS, 0.05, 0.05)
    assert found.typicality != table.typicality
    assert pipeline.bundle.scaled is not None
    assert old_strip.typicality is not None
    assert strip.typicality is not None
    assert (
        [file.name for file in out.glob("features*")] == [strip.typicality.features] != [old_strip.typicality.features]
    )


@pytest.mark.usefixtures("few_overlays")
def test_a_successor_with_too_few_pictures_keeps_only_the_threshold_of_strip(folder: Path, tmp_path: Path) -> None:
    model = folder / "model.toml"
    # Enough pictures for STRIP's threshold, and too few for the tails.
    model.write_text(re.sub(r"(?m)^frr = 0\.05$", "frr = 0.1", model.read_text()))
    out, (_, old_strip, _) = tmp_path / "successor", loaded(folder)
    bundle, line = write_successor(out, folder, changed_network(folder), pictures(29, 6), "tuned")
    assert "the given bundle's: clean pictures: expected at least 20 besides the overlays" in line
    assert line.endswith("It lacks the p-value of all statistics: `pointillist lab calibrate` makes them")
    strip = bundle.settings.strip
    assert strip is not None
    assert (strip.combined, strip.typicality, strip.threshold_bits) == (None, None, old_strip.threshold_bits)
    assert (out / strip.overlays).read_bytes() == (folder / old_strip.overlays).read_bytes()
    assert not list(out.glob("features*"))


@pytest.mark.usefixtures("few_overlays")
def test_a_successor_gets_no_p_value_that_no_frame_can_fall_below(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_tiny_threshold(values: Values, frr: float, norms: int | None) -> CombinedThreshold:
        return combined(values, frr, norms).model_copy(update={"threshold": 2**-MOST_OCTAVES})

    model = folder / "model.toml"
    model.write_text(re.sub(r"(?m)^threshold_bits = .*$", "threshold_bits = 0.0001", model.read_text()))
    usual = write_successor(tmp_path / "usual", folder, changed_network(folder), pictures(200, 6), "tuned")[0]
    monkeypatch.setattr("lab.strip.table.combined_table", with_tiny_threshold)
    bundle, line = write_successor(tmp_path / "out", folder, changed_network(folder), pictures(200, 6), "tuned")
    assert "It lacks the p-value of all statistics: " in line
    assert usual.settings.strip is not None
    # STRIP's own threshold is that of the new network.
    assert bundle.settings.strip == usual.settings.strip.model_copy(update={"combined": None, "typicality": None})
    assert not list((tmp_path / "out").glob("features*"))


@pytest.mark.usefixtures("few_overlays")
def test_a_successor_with_too_few_pictures_for_dropped_frames_is_still_a_bundle(folder: Path, tmp_path: Path) -> None:
    with (folder / "model.toml").open("a") as table:
        table.write("\n[[strip.dropped]]\ndropped_per_block = 16\nthreshold_bits = 0.0\nfrr = 0.01\n")
    out, (_, old_strip, _) = tmp_path / "successor", loaded(folder)
    bundle, line = write_successor(out, folder, changed_network(folder), pictures(60, 6), "tuned", dropped=True)
    assert "the given bundle's: clean pictures: expected at least 110, got 60" in line
    assert "It lacks the p-value of all statistics and the thresholds of dropped frames: " in line
    strip = bundle.settings.strip
    assert strip is not None
    assert (strip.combined, strip.dropped, strip.threshold_bits) == (None, [], old_strip.threshold_bits)
    assert sorted(files(out)) == ["model.toml", old_strip.overlays, "weights.safetensors"]
