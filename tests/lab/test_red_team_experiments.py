"""Experiments that validate the attacks: they resume, and agree with libraries on easy pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab.baselines import BitDepth
from lab.cache import Cache
from lab.data import LabelledPictures, to_frames
from lab.experiments.red_team import broken, parity
from lab.experiments.super_iot.judges import judge_of
from processors.bundle import Bundle, load_bundle
from tests.lab.colour_classifier import coloured_pictures, write_bundle

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_bundle(tmp_path_factory.mktemp("colours")), CPU)


@pytest.fixture(scope="module")
def pictures() -> LabelledPictures:
    return coloured_pictures(12, lead=6)


def test_a_broken_defence_is_measured_once_and_cached(
    bundle: Bundle, pictures: LabelledPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "STEPS", 3)
    monkeypatch.setattr(broken, "CHUNK", 5)
    depth = broken.Broken("bit-depth", BitDepth(8), 1, "identity")
    training, cache = to_frames(pictures.images, CPU), Cache(tmp_path)

    row = broken.measure(depth, bundle, pictures, training, cache)
    assert (row.images, row.undefended, row.clean) == (12, 1, 1)
    assert row.attacked == row.survived < 0.5
    assert row.attacked_low <= row.attacked <= row.attacked_high

    def never(*arguments: object, **options: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(broken, "eot_pgd", never)
    assert broken.measure(depth, bundle, pictures, training, cache) == row


def test_our_attacks_succeed_on_as_many_pictures_as_those_of_foolbox(
    bundle: Bundle, pictures: LabelledPictures, tmp_path: Path
) -> None:
    judge = judge_of(bundle, pictures, 0, 8)
    pairs = {pair.name: pair for pair in parity.PAIRS}
    for name in ("fgsm", "eot-pgd L2", "jsma"):
        row = parity.measure(pairs[name], judge, Cache(tmp_path))
        assert row.images == 8
        if pairs[name].theirs is not None:
            assert row.success == row.success_foolbox
            assert row.success > 0.5
            assert row.l2 == pytest.approx(row.l2_foolbox, rel=0.05)
