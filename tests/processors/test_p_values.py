"""The p-values of probes in the batch executor: the combination of all statistics, and the fields of the verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from processors.arrivals.job import FrameJob, StripFinding
from processors.bundle import Bundle, load_bundle
from processors.bundle.strip_table import DISAGREEMENT, ENTROPY, LAYER_DISAGREEMENT, SCALED_NORMS, TYPICALITY
from processors.device.batch_executor import BatchExecutor
from processors.pipeline import Pipeline
from processors.results.records import verdict_record
from processors.stages.typicality import FeatureValues
from schemas.errors import StageError
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import CHECKED, NO_STATISTIC, Statistic, Verdict
from tests.processors.tiny import (
    KEYS,
    SERVING_MODEL,
    batch_executor,
    camera_key,
    classify_copies,
    payload,
    picture,
    tail_table,
    tiny_bundle,
    verdict_of,
    verified_job,
    write_bundle,
)

CPU = torch.device("cpu")
ALL_STATISTICS = (ENTROPY, DISAGREEMENT, TYPICALITY, LAYER_DISAGREEMENT, SCALED_NORMS)


def complete_bundle(folder: Path) -> Bundle:
    """Return a bundle with all statistics."""
    write_bundle(folder, combined=0.01, norms=3)
    means = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    known, whitening = torch.ones(3, dtype=torch.bool), torch.eye(4)
    tensors = {
        "means": means,
        "known": known,
        "whitening": whitening,
        "means_0": means / 2,
        "whitening_0": 2 * whitening,
    }
    save_file(tensors, folder / "features.safetensors")
    with (folder / "model.toml").open("a") as settings:
        settings.write(
            '[strip.typicality]\nfeatures = "features.safetensors"\nlayers = ["bn1"]\n'
            'log_mean = 0.0\nlog_spread = 1.0\nearlier = ["blocks.0.bn1"]\n'
            f"{tail_table('typicality', 1.0, 0.5)}{tail_table('layer_disagreement', 4.0, 1.0)}"
        )
    return load_bundle(folder, CPU)


def probed(executor: BatchExecutor, count: int = 3) -> list[FrameJob]:
    """Return frames of one camera that were sent whole, and are classified and checked."""
    messages = [payload("site/cam-0", seq, shown=picture(seq), encoding=Encoding(16, 1.0)) for seq in range(count)]
    jobs = classify_copies(executor, [verified_job(each) for each in messages])
    executor.strip(jobs)
    return jobs


def finding_of(job: FrameJob) -> StripFinding:
    """Return the finding of a job that did not fail."""
    assert job.error is None, job.error
    assert job.finding is not None
    return job.finding


def verdict(job: FrameJob) -> Verdict:
    """Return the verdict of a job, as the recorder reads it."""
    job.model = SERVING_MODEL
    return verdict_of(verdict_record(KEYS, job))


def octaves(value: float, largest: float, middle: float) -> float:
    """Return the rarity in octaves by a tail of two quantiles with the power 1, in plain Python."""
    if value >= largest:
        return 0.0
    if value >= middle:
        return math.log2(largest / value) / math.log2(largest / middle)
    return 1 + math.log2(middle / value)


def test_the_verdict_of_a_probe_has_the_p_value_of_all_statistics(tmp_path: Path) -> None:
    bundle = complete_bundle(tmp_path)
    executor = batch_executor(bundle)
    key, leading = camera_key("site/cam-0"), set()
    for seq, job in enumerate(probed(executor)):
        found = finding_of(job)
        assert found.entropy_bits is not None
        pipeline = executor.pipeline
        probe = torch.from_numpy(picture(seq).copy()).permute(2, 0, 1)[None].float() / 255
        masks = np.array([key.frame_seed(7, seq)], dtype=np.uint64)
        with torch.inference_mode():
            seen = pipeline.feature_values(probe)
            assert seen.layer_doubt is not None
            rarities = {
                ENTROPY: octaves(found.entropy_bits, 4.0, 1.5),
                DISAGREEMENT: octaves(float(pipeline.agreement(probe, masks)), 1.0, 0.5),
                TYPICALITY: octaves(float(seen.typicality), 1.0, 0.5),
                LAYER_DISAGREEMENT: octaves(float(seen.layer_doubt), 4.0, 1.0),
                SCALED_NORMS: octaves(float(pipeline.doubt(probe)), 1.4, 1.1),
            }
        assert min(rarities.values()) > 0.01
        expected = 2 ** -sum(rarities.values())
        assert found.p_value == pytest.approx(expected, rel=1e-3)
        assert rarities[found.statistic] > max(rarities.values()) - 1e-4
        leading.add(found.statistic)
        sent = verdict(job)
        assert sent.strip == CHECKED
        assert sent.p_value == pytest.approx(expected, rel=1e-3)
        assert sent.p_value_threshold == pytest.approx(0.01)
        assert sent.statistic == Statistic.Value(found.statistic.upper())
        assert sent.flagged == (found.p_value < 0.01)
    assert "" not in leading


@pytest.mark.parametrize("leading", ALL_STATISTICS)
def test_the_verdict_names_the_rarest_statistic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leading: str) -> None:
    executor = batch_executor(complete_bundle(tmp_path))
    value = {name: 1e-3 if name == leading else 0.9 for name in ALL_STATISTICS}

    def constant(name: str, probes: torch.Tensor) -> torch.Tensor:
        return torch.full((len(probes),), value[name])

    def feature_values(self: Pipeline, probes: torch.Tensor, **options: object) -> FeatureValues:
        return FeatureValues(constant(TYPICALITY, probes), constant(LAYER_DISAGREEMENT, probes))

    monkeypatch.setattr(Pipeline, "feature_values", feature_values)
    for name, method in ((DISAGREEMENT, "agreement"), (SCALED_NORMS, "doubt")):
        monkeypatch.setattr(Pipeline, method, lambda self, probes, *rest, name=name, **options: constant(name, probes))
    if leading == ENTROPY:
        strip = Pipeline.strip
        monkeypatch.setattr(
            Pipeline,
            "strip",
            lambda self, probes, **options: replace(
                strip(self, probes, **options), entropy_bits=torch.full((len(probes),), 1e-3)
            ),
        )
    for job in probed(executor):
        assert finding_of(job).statistic == leading
        sent = verdict(job)
        assert (sent.statistic, sent.flagged) == (Statistic.Value(leading.upper()), True)


def test_the_p_value_alone_decides_and_is_reproducible(tmp_path: Path) -> None:
    findings = []
    for threshold in (1e-9, 1.0):
        bundle = tiny_bundle(
            tmp_path / str(threshold), threshold_bits=10.0 if threshold < 1 else 0.0, combined=threshold
        )
        findings.append([finding_of(job) for job in probed(batch_executor(bundle))])
    never, always = findings
    for one, other in zip(never, always, strict=True):
        assert one.p_value == pytest.approx(other.p_value, rel=1e-4)
        assert 0 < one.p_value < 1
        assert (one.p_value_threshold, other.p_value_threshold) == (1e-9, 1.0)
        assert (one.flagged, other.flagged) == (False, True)
        assert one.statistic == other.statistic
    assert never[0].p_value != pytest.approx(never[1].p_value, rel=1e-4)


def test_the_p_value_of_a_probe_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    executor = batch_executor(complete_bundle(tmp_path))
    together = probed(executor, 4)
    for job in together:
        alone = finding_of(job)
        executor.strip([job])
        assert finding_of(job).p_value == pytest.approx(alone.p_value, rel=1e-3)
        assert finding_of(job).statistic == alone.statistic


def test_the_agreement_does_not_depend_on_the_mode_of_reconstruction(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, combined=0.01)
    probes = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    seeds = np.arange(4, dtype=np.uint64).reshape(2, 2)
    usual, paper = (Pipeline(bundle, mode).agreement(probes, seeds) for mode in ("default", "paper"))
    torch.testing.assert_close(paper, usual)


@pytest.mark.parametrize(
    ("method", "place"), [("agreement", None), ("feature_values", 0), ("feature_values", 1), ("doubt", None)]
)
def test_a_statistic_of_nan_fails_only_its_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, place: int | None
) -> None:
    executor, original = batch_executor(complete_bundle(tmp_path)), getattr(Pipeline, method)

    def broken(self: Pipeline, probes: torch.Tensor, *rest: object, **options: object) -> object:
        found = original(self, probes, *rest, **options)
        values = (found if place is None else found[place]).clone()
        if len(values) > 1:
            values[1] = torch.nan
        return (
            values
            if place is None
            else FeatureValues(*(values if n == place else each for n, each in enumerate(found)))
        )

    monkeypatch.setattr(Pipeline, method, broken)
    jobs = probed(executor)
    assert [job.error is not None for job in jobs] == [False, True, False]
    assert isinstance(jobs[1].error, StageError)
    assert "expected numbers, got entropy" in str(jobs[1].error)
    assert (jobs[1].stage, jobs[1].finding) == ("strip", None)


def test_without_the_table_the_p_value_is_zero_and_the_entropy_decides(tmp_path: Path) -> None:
    for threshold, flagged in ((0.0, False), (10.0, True)):
        executor = batch_executor(tiny_bundle(tmp_path / str(threshold), threshold_bits=threshold))
        assert executor.p_value_threshold == 0
        for job in probed(executor):
            found, sent = finding_of(job), verdict(job)
            assert (found.p_value, found.p_value_threshold, found.statistic) == (0, 0, "")
            assert (sent.p_value, sent.p_value_threshold, sent.statistic) == (0, 0, NO_STATISTIC)
            assert found.flagged == sent.flagged == flagged
    with pytest.raises(StageError, match=r"p-values: expected a bundle with the table strip\.combined"):
        executor.pipeline.p_values(torch.rand(1, 3, 32, 32), np.ones(1), np.zeros((1, 2), dtype=np.uint64))


def test_the_warm_up_runs_all_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, seen, original = batch_executor(complete_bundle(tmp_path)), list[int](), Pipeline.doubt

    def counted(self: Pipeline, probes: torch.Tensor, **options: torch.Tensor | None) -> torch.Tensor:
        seen.append(len(probes))
        return original(self, probes, **options)

    monkeypatch.setattr(Pipeline, "doubt", counted)
    assert (executor.warm(1) or 0) > 0
    assert seen == [1, 1]


def test_the_verdict_of_a_probe_names_the_probe_with_which_its_scene_began(tmp_path: Path) -> None:
    executor = batch_executor(complete_bundle(tmp_path))
    assert [verdict(job).scene for job in probed(executor)] == [0, 1, 2]
    again = [payload("site/cam-0", 9, shown=picture(1), encoding=Encoding(16, 1.0))]
    (job,) = classify_copies(executor, [verified_job(each) for each in again])
    executor.strip([job])
    assert verdict(job).scene == 1


def test_a_second_judgement_of_a_probe_names_no_scene_and_is_not_remembered(tmp_path: Path) -> None:
    executor = batch_executor(complete_bundle(tmp_path))
    for judged_before, scene in ((True, None), (False, 5)):
        message = payload("site/cam-0", 5, shown=picture(1), encoding=Encoding(16, 1.0))
        (job,) = classify_copies(executor, [verified_job(message)])
        job.judged_before = judged_before
        executor.strip([job])
        assert finding_of(job).scene == scene
        assert verdict(job).HasField("scene") != judged_before
