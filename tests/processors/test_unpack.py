"""Masks and placed pixels on the device, compared with the camera's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.arrivals.job import FrameJob, Shape
from processors.arrivals.progress import PartitionProgress
from processors.device.codebooks import DeviceCodebooks
from processors.device.compiled_pipeline import _masks_of
from processors.stages.unpack import kept_masks, philox, place
from schemas.errors import StageError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing
from schemas.limits import BLOCK
from schemas.messages.frame import Encoding, decode_picture, encode_frame, open_frame, opened_pixels
from schemas.pixels.masks import ROWS, kept_mask
from schemas.pixels.philox import philox as reference
from schemas.pointillist_pb2 import Frame
from tests.processors.tiny import FakeRecord

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

KEYS = KeyRing(b"a fleet secret of tests")
WORD = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=4), st.integers(1, 40))
def test_philox_equals_the_cameras_generator_bit_for_bit(
    device: str, seeds: list[tuple[int, int]], counters: int
) -> None:
    words = philox(torch.tensor(seeds, device=device), counters).cpu().numpy()
    for row, seed in zip(words, seeds, strict=True):
        np.testing.assert_array_equal(row, reference(seed, counters))


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 45),
    width=st.integers(1, 45),
    channels=st.sampled_from((1, 3)),
    drops=st.lists(st.sampled_from((0, 1, 16, 32, 45, 56)), min_size=1, max_size=4),
    boot_id=st.integers(1, 2**63 - 1),
    probe_share=st.sampled_from((0.0, 0.5, 1.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_batch_unpacks_to_the_decoded_pictures_of_its_frames(
    device: str, height: int, width: int, channels: int, drops: list[int], boot_id: int, probe_share: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    books = DeviceCodebooks(torch.device(device))
    pictures, masks, frames, keys = [], [], [], []
    for i, dropped in enumerate(drops):
        key = KEYS.key(CameraId(f"site/cam-{i}"), 0)
        picture = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
        payload = encode_frame(key, boot_id, seed + i, 0, picture, Encoding(dropped, probe_share))
        frame = open_frame(key.camera_id, payload, KEYS)
        decoded, kept = decode_picture(key, frame)
        pictures.append(decoded)
        masks.append(kept)
        frames.append(frame)
        keys.append(key)
    sent = [np.frombuffer(opened_pixels(k, f), np.uint8) for k, f in zip(keys, frames, strict=True)]
    # There may be more pixels than the masks need, and there is at least one.
    pixels = np.concatenate((*sent, np.zeros(channels, np.uint8))).reshape(-1, channels)
    slots = books.slots([(k, f.dropped_per_block) for k, f in zip(keys, frames, strict=True)])
    seeds = torch.tensor([k.frame_seed(f.boot_id, f.seq) for k, f in zip(keys, frames, strict=True)], device=device)
    whole = torch.tensor([f.whole for f in frames], device=device)
    kept_batch = kept_masks(seeds, books.table, slots, height, width)
    unpacked = place(torch.from_numpy(pixels).to(device), kept_batch | whole[:, None, None, None])
    expected = np.stack(pictures).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(unpacked.mul(255).round().byte().cpu().numpy(), expected)
    np.testing.assert_array_equal(kept_batch.cpu().numpy()[:, 0], np.stack(masks))
    assert unpacked.dtype == torch.float32
    assert float(unpacked.max()) <= 1


def test_evicted_codebooks_are_rebuilt_correctly() -> None:
    books = DeviceCodebooks(torch.device("cpu"), capacity=20)
    keys = [KEYS.key(CameraId(f"site/cam-{i}"), 0) for i in range(30)]
    for key in [*keys, *keys[:5]]:
        slot = books.slots([(key, 16)])
        seed = torch.tensor([key.frame_seed(7, 3)])
        mask = kept_masks(seed, books.table, slot, 24, 16)[0, 0].numpy()
        np.testing.assert_array_equal(mask, kept_mask(key, 7, 3, 24, 16, 16))
    assert len(books.table) == 20


@pytest.mark.parametrize(("height", "width"), [(24, 16), (30, 43), (128, 128), (136, 128)])
def test_each_frame_of_a_mixed_batch_has_its_own_mask_and_small_frames_use_no_codebook(height: int, width: int) -> None:
    books = DeviceCodebooks(torch.device("cpu"))
    keys = [KEYS.key(CameraId(f"site/cam-{i}"), 0) for i in range(18)]
    drops = [0, 16, 16, 45, 16, 3] * 3
    jobs = []
    for seq, (key, dropped) in enumerate(zip(keys, drops, strict=True)):
        job = FrameJob.of(FakeRecord(None, offset=seq), PartitionProgress(), 0.0)
        job.key, job.shape = key, Shape(height, width, 3)
        job.frame = Frame(boot_id=7, seq=seq, dropped_per_block=dropped)
        jobs.append(job)
    seeds = [key.frame_seed(7, seq) for seq, key in enumerate(keys)]
    masks = _masks_of(jobs[0].shape)
    kept, _ = masks(torch.tensor(seeds), books.of(jobs, seeds), torch.zeros(18, dtype=torch.bool))
    for seq, (key, dropped) in enumerate(zip(keys, drops, strict=True)):
        np.testing.assert_array_equal(kept[seq, 0].numpy(), kept_mask(key, 7, seq, height, width, dropped))
    assert len(books) == (0 if height * width <= 128 * 128 else 18)


def test_seeds_of_a_wrong_shape_are_rejected() -> None:
    books = DeviceCodebooks(torch.device("cpu"))
    with pytest.raises(StageError, match=r"seeds \(B, 2\)"):
        kept_masks(torch.zeros(3, dtype=torch.int64), books.table, torch.zeros(3, dtype=torch.int64), 8, 8)


def test_pixels_beyond_the_mask_are_ignored() -> None:
    sent = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.4
    count = int(sent.sum())
    pixels = torch.randint(0, 256, (count, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    longer = torch.cat((pixels, torch.full((50, 3), 255, dtype=torch.uint8)))
    assert torch.equal(place(longer, sent), place(pixels, sent))


def test_frames_without_sent_pixels_are_black() -> None:
    nothing = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    assert not place(torch.full((1, 3), 255, dtype=torch.uint8), nothing).any()


def test_masks_of_large_frames_equal_those_of_the_camera() -> None:
    books = DeviceCodebooks(torch.device("cpu"))
    key, other = (KEYS.key(CameraId(f"site/cam-{i}"), 0) for i in range(2))
    slots = books.slots([(key, 16), (other, 16)])
    seeds = torch.tensor([key.frame_seed(1, 2), other.frame_seed(1, 3)])
    masks = kept_masks(seeds, books.table, slots, 201, 333)[:, 0].numpy()
    np.testing.assert_array_equal(masks[0], kept_mask(key, 1, 2, 201, 333, 16))
    np.testing.assert_array_equal(masks[1], kept_mask(other, 1, 3, 201, 333, 16))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (13, 21), (40, 33)])
def test_the_gpus_operations_give_the_same_result_as_those_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    """Compare the operations that are used on a GPU and while torch compiles with those of the CPU."""
    drawn = torch.Generator().manual_seed(3)
    seeds = torch.randint(0, 2**32, (3, 2), generator=drawn)
    codebooks = torch.randint(0, 256, (2, ROWS, BLOCK), dtype=torch.uint8, generator=drawn)
    book = torch.tensor([0, 1, 1])
    masks = kept_masks(seeds, codebooks, book, height, width)
    pixels = torch.randint(0, 256, (int(masks.count_nonzero()), 3), dtype=torch.uint8, generator=drawn)
    frames = place(pixels, masks)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(kept_masks(seeds, codebooks, book, height, width), masks)
    torch.testing.assert_close(place(pixels, masks), frames)
