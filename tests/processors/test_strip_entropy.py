"""STRIP's mean entropy, compared with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from processors.stages.classify import classify
from processors.stages.strip import Logits, class_entropy, overlaid_logits
from schemas.errors import StageError


def strip_entropy(frames: Tensor, overlays: Tensor, logits: Logits, *, max_batch: int | None = None) -> Tensor:
    """Return the mean entropy in bits of the verdicts on `frames + overlay`, over the overlays: (B,)."""
    verdicts = overlaid_logits(frames, overlays, logits, max_batch=max_batch)
    return class_entropy(verdicts.flatten(0, 1)).view(verdicts.shape[:2]).mean(1)


def network(classes: int, pixels: int, device: torch.device) -> torch.nn.Module:
    layer = torch.nn.Linear(pixels, classes, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, pixels, generator=torch.Generator().manual_seed(1)))
    return torch.nn.Sequential(torch.nn.Flatten(), layer).to(device).requires_grad_(False)


def test_entropy_is_over_classes_in_bits(device: torch.device) -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    p = logits.softmax(1).numpy()
    np.testing.assert_allclose(class_entropy(logits.to(device)).cpu(), entropy(p, base=2, axis=1), atol=1e-12)
    assert class_entropy(torch.zeros(1, 8, device=device)).item() == pytest.approx(3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_certain_verdict_has_no_entropy(dtype: torch.dtype, device: torch.device) -> None:
    logits = torch.tensor([[30000.0, 0.0, -30000.0]], dtype=dtype, device=device)
    assert class_entropy(logits).tolist() == [0.0]


@pytest.mark.parametrize("max_batch", [1, 4, 7, 1000])
def test_the_entropy_is_the_mean_over_sums_with_all_overlays(max_batch: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    frames = torch.rand(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    overlays = torch.rand(5, 2, 4, 4, generator=generator, dtype=torch.float64)
    logits = network(6, 32, device)
    sizes = []

    def counted(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        out = logits(batch)
        assert isinstance(out, torch.Tensor)
        return out

    found = strip_entropy(frames.to(device), overlays.to(device), counted, max_batch=max_batch).cpu()
    expected = [
        np.mean([entropy(logits((f + o)[None].to(device)).softmax(1).cpu()[0], base=2) for o in overlays])
        for f in frames
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert sum(sizes) == 15
    assert max(sizes) == min(max_batch, 15)


def test_overlays_are_added_without_clamping_or_blending(device: torch.device) -> None:
    seen = []

    def record(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch.clone())
        return torch.zeros(len(batch), 4, device=batch.device)

    ones = torch.ones(1, 1, 2, 2, device=device)
    assert strip_entropy(ones, ones, record).item() == pytest.approx(2)
    assert torch.equal(seen[0], 2 * ones)


def test_a_trigger_that_forces_its_class_has_less_entropy_than_a_clean_frame(device: torch.device) -> None:
    def backdoored(batch: torch.Tensor) -> torch.Tensor:
        logits = batch.flatten(2).mean(2) * 3
        logits[:, 0] += 50 * (batch[:, 0, 0, 0] >= 1)
        return logits

    generator = torch.Generator().manual_seed(4)
    frames = torch.rand(2, 3, 6, 6, generator=generator).to(device) * 0.4
    overlays = torch.rand(20, 3, 6, 6, generator=generator).to(device) * 0.5
    frames[1, 0, 0, 0] = 1.0
    clean, poisoned = strip_entropy(frames, overlays, backdoored).tolist()
    assert poisoned < 1e-3 < 1 < clean


def test_an_empty_batch_gives_no_entropy(device: torch.device) -> None:
    found = strip_entropy(torch.zeros(0, 1, 2, 2, device=device), torch.zeros(3, 1, 2, 2, device=device), lambda x: x)
    assert found.shape == (0,)


def test_wrong_arguments_are_named() -> None:
    frames, overlays = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 8, 8)
    logits = network(5, 192, torch.device("cpu")).float()
    with pytest.raises(StageError, match=r"overlays: expected \(N, 3, 8, 8\) with N at least 1, got \(0,"):
        strip_entropy(frames, overlays[:0], logits)
    with pytest.raises(StageError, match=r"got \(4, 3, 8, 4\)"):
        strip_entropy(frames, overlays[..., :4], logits)
    with pytest.raises(StageError, match=r"expected \(8, classes\), got \(8, 5, 1\)"):
        strip_entropy(frames, overlays, lambda x: logits(x)[..., None])
    with pytest.raises(StageError, match="max_batch: expected at least 1, got 0"):
        strip_entropy(frames, overlays, logits, max_batch=0)


def test_a_verdict_is_the_most_likely_class_with_its_probability(device: torch.device) -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 5.5, -2.0]], device=device)
    classes, confidence = classify(logits)
    assert classes.tolist() == [1, 1]
    assert classes.dtype == torch.int64
    p = np.exp(logits.cpu().numpy())
    np.testing.assert_allclose(confidence.cpu(), (p / p.sum(1, keepdims=True)).max(1), rtol=1e-6)
    with pytest.raises(StageError, match=r"expected \(B, classes\), got \(3,\)"):
        classify(logits[0])
