"""The reconstruction of dropped pixels by the shipped networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.masks import random_masks
from processors.networks.filler import Filler
from processors.networks.restorer import MULTIPLE, Restorer
from processors.stages import learned
from processors.stages.learned import reconstruct_learned, shipped_filler, shipped_restorer
from processors.stages.paper import reconstruct_paper
from processors.stages.plate import reconstruct_plate
from processors.stages.reconstruct import reconstruct
from producers.scene.simulator import SceneSimulator
from schemas.errors import StageError
from schemas.pixels.masks import codebook
from tests.processors.kernel_rig import random_case


def scenes(count: int, dropped: int) -> tuple[Tensor, Tensor]:
    """Return simulated frames (count, 3, 64, 64) with little sensor noise, and the masks of a camera."""
    pictures = [SceneSimulator(3, camera, (256, 256)).render(0)[0] for camera in range(count)]
    frames = torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]).float() / 255
    frames = F.avg_pool2d(frames, 4)
    words = codebook((1, 2), dropped)[: 64 * count]
    blocks = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(count, 8, 8, 8, 8)
    kept = torch.from_numpy(blocks).permute(0, 1, 3, 2, 4).reshape(count, 1, 64, 64)
    return frames, kept.bool()


def mean_psnr(found: Tensor, wanted: Tensor) -> float:
    return float(-10 * (found - wanted).square().mean((1, 2, 3)).log10().mean())


def test_the_restorer_is_closer_to_the_original_than_the_plate_and_algorithm_1() -> None:
    for dropped in (16, 32):
        frames, kept = scenes(12, dropped)
        by_mode = {mode: mean_psnr(reconstruct(frames, kept, mode), frames) for mode in ("default", "plate", "paper")}
        assert by_mode["default"] > by_mode["plate"] + 0.3
        assert by_mode["plate"] > by_mode["paper"]


def test_small_changes_of_kept_pixels_are_partly_removed() -> None:
    frames, kept = scenes(12, 16)
    signs = torch.randint(0, 2, frames.shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    changed = (frames + signs * 3 / 255).clamp(0, 1)
    plate = reconstruct(changed, kept, "plate")
    assert mean_psnr(reconstruct(changed, kept), frames) > mean_psnr(plate, frames) + 0.2


def test_far_from_its_edges_a_part_is_rebuilt_as_in_the_whole_frame(device: torch.device) -> None:
    frames, kept = random_case((1, 3, 256, 256), 0.25)
    frames, kept = frames.to(device), kept.to(device)
    part = (..., slice(64, 240), slice(48, 224))
    reach = (..., slice(64, -64), slice(64, -64))
    assert all(cut.start % MULTIPLE == 0 for cut in part[1:])
    whole = reconstruct(frames, kept)[part]
    torch.testing.assert_close(reconstruct(frames[part], kept[part])[reach], whole[reach], atol=1e-5, rtol=0)


def test_grey_frames_are_restored_as_grey_colours(device: torch.device) -> None:
    frames, kept = random_case((2, 1, 16, 16), 0.25)
    # Values far from 0 and 1 avoid clipping, which acts on each colour separately.
    frames, kept = (0.4 + 0.2 * frames).to(device), kept.to(device)
    coloured = reconstruct(frames.expand(-1, 3, -1, -1), kept)
    torch.testing.assert_close(reconstruct(frames, kept), coloured.mean(1, keepdim=True), atol=1e-5, rtol=0)


def test_an_untrained_restorer_equals_the_plate() -> None:
    frames, kept = random_case((2, 3, 21, 13), 0.3)
    found = reconstruct_learned(frames, kept, Restorer().eval())
    torch.testing.assert_close(found, reconstruct_plate(frames, kept), atol=1e-6, rtol=0)


def test_the_gain_multiplies_only_the_changes_of_kept_pixels() -> None:
    frames, kept = random_case((2, 3, 24, 24), 0.25)
    network = Restorer().eval()
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(network.leave.weight, std=0.02, generator=generator)
    changes = []
    for gain in (1.0, 1.25):
        network.kept_gain = gain
        changes.append((network(frames, kept) - frames).detach())
    assert changes[0].abs().max() > 1e-3
    torch.testing.assert_close(changes[1], torch.where(kept, 1.25 * changes[0], changes[0]), atol=1e-6, rtol=0)


def test_large_frames_have_their_own_network() -> None:
    cpu = torch.device("cpu")
    for side, network in ((learned.SMALL_SIDE, shipped_restorer(cpu)), (learned.SMALL_SIDE + 1, shipped_filler(cpu))):
        frames, kept = random_case((1, 3, side, 160), 0.25)
        assert torch.equal(reconstruct(frames, kept), reconstruct_learned(frames, kept, network))


@pytest.mark.parametrize("channels", [1, 3])
def test_large_frames_keep_their_sent_pixels_and_are_closer_than_the_plate(channels: int) -> None:
    picture = SceneSimulator(3, 0, (290, 402)).render(0)[0]
    frames = F.avg_pool2d(torch.from_numpy(picture).permute(2, 0, 1)[None, :channels].float() / 255, 2)
    kept = random_masks(1, 145, 201, 0.25, torch.Generator().manual_seed(9))
    found = reconstruct(frames * kept, kept)
    torch.testing.assert_close(found * kept, frames * kept, atol=1e-6, rtol=0)
    plate = reconstruct_plate(frames * kept, kept)
    assert float((found - frames).square().mean()) < float((plate - frames).square().mean())


def test_an_untrained_filler_equals_the_plate() -> None:
    frames, kept = random_case((2, 3, 21, 13), 0.3)
    found = reconstruct_learned(frames, kept, Filler().eval())
    torch.testing.assert_close(found, reconstruct_plate(frames, kept), atol=1e-6, rtol=0)


def test_the_weights_are_loaded_once() -> None:
    assert shipped_restorer(torch.device("cpu")) is shipped_restorer(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_devices_agree() -> None:
    frames, kept = scenes(8, 16)
    on_gpu = reconstruct(frames.cuda(), kept.cuda()).cpu()
    torch.testing.assert_close(on_gpu, reconstruct(frames, kept), atol=2e-3, rtol=0)


def test_the_paper_mode_runs_algorithm_1(device: torch.device) -> None:
    frames, kept = random_case((1, 3, 16, 16), 0.25)
    frames, kept = frames.to(device), kept.to(device)
    assert torch.equal(reconstruct(frames, kept, "paper"), reconstruct_paper(frames, kept))


def test_an_unknown_mode_and_a_wrong_number_of_channels_are_rejected() -> None:
    frames, kept = random_case((1, 3, 8, 8), 0.25)
    with pytest.raises(StageError, match="expected 'default', 'paper', 'plate' or 'none', got 'fast'"):
        reconstruct(frames, kept, "fast")  # type: ignore[arg-type]
    with pytest.raises(StageError, match="expected 1 or 3 channels, got 2"):
        reconstruct(frames[:, :2], kept)


def test_gradients_flow_through_weights_loaded_in_inference_mode() -> None:
    shipped_restorer.cache_clear()
    frames, kept = random_case((1, 3, 16, 16), 0.25)
    with torch.inference_mode():
        reconstruct(frames, kept)
    frames.requires_grad_()
    reconstruct(frames, kept).sum().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert frames.grad is not None
