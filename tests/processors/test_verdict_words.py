"""The name in a verdict, which is a class, its group or `unsure`; the best classes; the temperature."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from processors.bundle import Bundle, load_bundle
from processors.bundle.model_toml import Scores
from processors.stages.classify import ranked
from schemas.errors import BundleError
from schemas.messages.frame import Encoding
from tests.processors.tiny import CLASSES, batch_executor, classify_copies, payload, verified_job, write_bundle

CPU = torch.device("cpu")


def bundle(folder: Path, options: str = "", groups: str = "") -> Bundle:
    """Return the tiny bundle with additional keys and a table of groups."""
    write_bundle(folder)
    text = (folder / "model.toml").read_text()
    text = text.replace("\n[input]", f"\n{options}\n[input]")
    (folder / "model.toml").write_text(text + (f"\n[groups]\n{groups}" if groups else ""))
    return load_bundle(folder, CPU)


def test_a_verdict_names_the_class_or_else_its_group_or_else_unsure(tmp_path: Path) -> None:
    settings = bundle(tmp_path, "unsure_below = 0.5", f"first = [{CLASSES[0]!r}, {CLASSES[1]!r}]").settings
    sure = settings.answer(Scores(0, 0.6, ((0, 0.6), (1, 0.3)), (0, 0.9)))
    assert (sure.name, sure.confidence, sure.group) == (CLASSES[0], 0.6, "first")
    assert sure.best == ((CLASSES[0], 0.6), (CLASSES[1], 0.3))
    grouped = settings.answer(Scores(0, 0.4, (), (0, 0.7)))
    assert (grouped.name, grouped.confidence, grouped.group) == ("first", 0.7, "first")
    unsure = settings.answer(Scores(0, 0.3, (), (0, 0.45)))
    assert (unsure.name, unsure.confidence, unsure.group, unsure.group_confidence) == ("unsure", 0.3, "", 0.45)


def test_a_group_has_the_probability_of_its_classes() -> None:
    logits = torch.tensor([[2.5, 2.4, 0.0, 3.0], [0.0, 0.0, 0.0, 9.0]])
    groups = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    found = ranked(logits, groups)
    shares = logits.softmax(1)
    assert found.class_ids[0].tolist() == [3, 0, 1]
    torch.testing.assert_close(found.confidences[0], shares[0, [3, 0, 1]])
    assert found.group_id is not None
    assert found.group_confidence is not None
    assert found.group_id.tolist() == [0, 1]
    torch.testing.assert_close(found.group_confidence, torch.stack((shares[0, :2].sum(), shares[1, 3])))


def test_classes_are_ranked_only_with_unsure_below(tmp_path: Path) -> None:
    plain = bundle(tmp_path / "plain")
    [job] = classify_copies(batch_executor(plain), [verified_job(payload("site/cam-0", 1))])
    assert (job.scores.best, job.scores.group) == ((), None)
    ranks = bundle(tmp_path / "ranks", "unsure_below = 0.1", f"all = {list(CLASSES)!r}")
    [job] = classify_copies(batch_executor(ranks), [verified_job(payload("site/cam-0", 1))])
    number, confidence = job.scores.best[0]
    assert (number, round(confidence, 5)) == (job.scores.class_id, round(job.scores.confidence, 5))
    assert len(job.scores.best) == min(3, len(CLASSES))
    assert job.scores.group is not None
    assert job.scores.group[0] == 0
    assert job.scores.group[1] > 0.999


def test_a_temperature_lowers_the_confidence_and_keeps_the_class(tmp_path: Path) -> None:
    jobs = []
    for name, options in (("one", ""), ("four", "temperature = 4.0")):
        executor = batch_executor(bundle(tmp_path / name, options))
        jobs += classify_copies(executor, [verified_job(payload("site/cam-0", 1, encoding=Encoding(16)))])
    assert jobs[0].scores.class_id == jobs[1].scores.class_id
    assert 1 / len(CLASSES) < jobs[1].scores.confidence < jobs[0].scores.confidence


def test_each_setting_that_changes_verdicts_changes_the_model_id(tmp_path: Path) -> None:
    model_ids = [
        bundle(tmp_path / str(number), *options).model_id
        for number, options in enumerate(
            [(), ("temperature = 2.0",), ("", f"a = [{CLASSES[0]!r}]"), ("", f"b = [{CLASSES[0]!r}]")]
        )
    ]
    assert len(set(model_ids)) == len(model_ids)


@pytest.mark.parametrize(
    ("options", "groups", "expected"),
    [
        ("", 'a = ["no such class"]', "groups: expected names of classes, got 'no such class'"),
        ("", f"a = [{CLASSES[0]!r}]\nb = [{CLASSES[0]!r}]", "groups: expected each class in one group at most"),
        ("temperature = 0.0", "", "temperature: .*greater than 0"),
    ],
)
def test_a_wrong_group_or_temperature_is_named(tmp_path: Path, options: str, groups: str, expected: str) -> None:
    with pytest.raises(BundleError, match=expected) as caught:
        bundle(tmp_path, options, groups)
    assert not re.search("\n", str(caught.value))
