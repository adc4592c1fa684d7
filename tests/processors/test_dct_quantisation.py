"""Algorithm 1, step 1, compared with the same algorithm in loops and scipy's DCT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from processors.stages.preprocess.dct_quantisation import dct_quantise, read_table, table_text
from schemas.errors import BundleError
from tests.processors.preprocess_rig import smooth_pictures


def by_the_paper(pictures: Tensor, table: np.ndarray) -> np.ndarray:
    """Return the pictures after lines 5 to 9 of Algorithm 1, computed block by block on the scale 0–255."""
    height, width = pictures.shape[2:]
    margins = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
    out = np.pad(pictures.double().numpy() * 255, margins, mode="edge")
    for picture in out:
        for channel in picture:
            for y in range(0, channel.shape[0], 8):
                for x in range(0, channel.shape[1], 8):
                    dct = scipy.fft.dctn(channel[y : y + 8, x : x + 8], norm="ortho")
                    quantised = np.round(dct / table)
                    channel[y : y + 8, x : x + 8] = scipy.fft.idctn(quantised * table, norm="ortho")
    return (out[:, :, :height, :width] / 255).clip(0, 1)


def some_table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(20, 100, (8, 8))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (3, 13, 21), (1, 1, 3)])
def test_blocks_are_quantised_as_in_the_paper(channels: int, height: int, width: int) -> None:
    pictures, table = smooth_pictures(3, channels, height, width), some_table()
    got = dct_quantise(pictures, torch.from_numpy(table).float())
    np.testing.assert_allclose(got, by_the_paper(pictures, table), atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(8, 8), (9, 17), (32, 32)]), st.floats(0.5, 300))
# Quotients in the thousands, whose ties float32 cannot represent.
@example(0, (8, 8), 0.5)
@settings(max_examples=30, deadline=None)
def test_values_stay_in_range_and_a_picture_does_not_depend_on_its_batch(
    seed: int, size: tuple[int, int], step: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(3, 3, *size, generator=generator).round(decimals=1)
    pictures[0] = pictures[0].round()
    steps = torch.full((8, 8), step)
    together = dct_quantise(pictures, steps)
    assert together.shape == pictures.shape
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    alone = torch.cat([dct_quantise(picture[None], steps) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0.0, 5.0, 15.0, 25.0, 255.0])
def test_a_tie_in_a_flat_picture_is_rounded_alike_in_every_batch(level: float) -> None:
    # 8 · level / 80 is half a step from the next multiple for 5, 15 and 25.
    flat = torch.full((1, 1, 8, 8), level / 255)
    steps = torch.full((8, 8), 80.0)
    alone = dct_quantise(flat, steps)
    in_batch = dct_quantise(torch.cat((smooth_pictures(5, 1, 8, 8), flat)), steps)[-1:]
    torch.testing.assert_close(alone, in_batch, atol=1e-6, rtol=0)
    wanted = min(1.0, np.floor(8 * level / 80 + 0.5) * 10 / 255)
    torch.testing.assert_close(alone, torch.full_like(alone, wanted), atol=1e-6, rtol=0)


def test_sums_of_two_pictures_are_not_cut_off_at_one() -> None:
    steps = torch.full((8, 8), 2.0)
    bright = 0.8 + 0.9 * smooth_pictures(2, 3, 16, 16)
    torch.testing.assert_close(dct_quantise(bright, steps), bright, atol=0.05, rtol=0)


def test_no_gradient_passes() -> None:
    pictures = smooth_pictures(1, 3, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(dct_quantise(pictures, torch.full((8, 8), 30.0)).sum(), pictures)
    assert not gradient.any()


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    steps = torch.from_numpy(some_table().round(2)).float()
    (tmp_path / "table.txt").write_text(table_text(steps, ["a comment"]))
    torch.testing.assert_close(read_table(tmp_path / "table.txt"), steps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "expected 8 lines of 8 steps, got 1 lines"),
        ("1 2 3 4 5 6 7\n" * 8, r"expected 8 lines of 8 steps, got lines of \[7\]"),
        ("1 2 3 4 5 6 7 0\n" * 8, "expected steps above 0 and up to 2040, got '0'"),
        ("1 2 3 4 5 6 7 nan\n" * 8, "got 'nan'"),
        ("1 2 3 4 5 6 7 x\n" * 8, "got 'x'"),
        ("1 2 3 4 5 6 7 2041\n" * 8, "got '2041'"),
    ],
)
def test_an_invalid_table_is_rejected_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(BundleError, match=message) as raised:
        read_table(tmp_path / "table.txt")
    assert "\n" not in str(raised.value)
