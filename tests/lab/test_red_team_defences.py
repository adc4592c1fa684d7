"""The defences of the red team: the functions that attackers differentiate, and those that classify."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab.data import to_frames
from lab.red_team.attack import usable_gradients
from lab.red_team.chain import one_draw
from lab.red_team.defences import NAMES
from processors.bundle import Bundle, load_bundle
from tests.lab.colour_classifier import coloured_pictures, write_bundle
from tests.lab.masked_networks import CPU, colour_defence, defence_of


@pytest.mark.parametrize("variant", ["bpda-identity", "bpda-stand-in", "bpda-surrogate"])
@pytest.mark.parametrize("name", ["fleet", "key-known"])
def test_bpda_has_the_outputs_of_the_whole_defence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, variant: str
) -> None:
    monkeypatch.setattr("lab.red_team.defences.LEARNING_STEPS", 1)
    pictures = coloured_pictures(4)
    defence = colour_defence(tmp_path, pictures, name)
    frames = to_frames(pictures.images, CPU)
    with torch.no_grad():
        whole = defence.facing("defence", 3).attacked(frames, torch.Generator().manual_seed(5))
        approximated = defence.facing(variant, 3).attacked(frames, torch.Generator().manual_seed(5))
    torch.testing.assert_close(approximated, whole)


def with_stages(folder: Path) -> Bundle:
    """Load the colour classifier behind a stage without a gradient and a random stage."""
    write_bundle(folder)
    with (folder / "model.toml").open("a") as settings:
        settings.write('[[preprocess]]\nstage = "bit-depth"\nbits = 5\n[[preprocess]]\nstage = "grid-distortion"\n')
    return load_bundle(folder, CPU)


@pytest.mark.parametrize("name", ["fleet", "key-known", "stages"])
def test_attacks_on_stages_get_exact_values_and_an_approximate_gradient(tmp_path: Path, name: str) -> None:
    pictures = coloured_pictures(4)
    bundle = with_stages(tmp_path)
    defence = defence_of(bundle, pictures, name)
    frames, labels = to_frames(pictures.images, CPU), torch.from_numpy(pictures.labels)
    facing = defence.facing("defence", 3)
    with torch.no_grad():
        seen, judged = (each(frames, torch.Generator().manual_seed(5)) for each in facing)
    torch.testing.assert_close(seen, judged)
    assert usable_gradients(facing.attacked, frames, labels, torch.Generator().manual_seed(5)).all()
    assert not usable_gradients(facing.judged, frames, labels, torch.Generator().manual_seed(5)).any()
    with torch.no_grad():
        again = facing.judged(frames, torch.Generator().manual_seed(6))
    # Only an attacker with the key knows the draw.
    assert torch.equal(again, judged) == (name == "key-known")


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_draw_does_not_depend_on_the_other_pictures(tmp_path: Path, name: str) -> None:
    pictures = coloured_pictures(4)
    defence = defence_of(with_stages(tmp_path), pictures, name)
    frames = to_frames(pictures.images, CPU)
    fixed = defence.facing("fixed", 3).attacked
    with torch.no_grad():
        together = fixed(frames, torch.Generator().manual_seed(1))
        alone = fixed(frames[2:3], torch.Generator().manual_seed(2))
    torch.testing.assert_close(alone, together[2:3])


def test_with_one_draw_every_picture_gets_the_same_noise() -> None:
    def noisy(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return frames.flatten(1) + torch.rand(len(frames), 1, generator=generator)

    logits = one_draw(noisy, 7)(torch.zeros(3, 1, 1, 2), torch.Generator())
    assert len(set(logits.flatten().tolist())) == 1
