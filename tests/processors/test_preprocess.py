"""The stages of a bundle: order, seeds, policies, gradients, and one-line errors for invalid tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from processors.bundle import Bundle, load_bundle, read_settings
from processors.stages.preprocess import STAGES, Stage, fresh_seeds, preprocess, straight_through
from processors.stages.preprocess.contract import seeds_of_sums, seeds_of_tiles
from processors.stages.preprocess.dct_quantisation import dct_quantise, read_table
from processors.stages.preprocess.grid_distortion import distort
from processors.stages.preprocess.quantisation import save_parameters
from schemas.errors import BundleError, StageError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.processors.preprocess_rig import CHAIN, smooth_pictures, staged_bundle, staged_folder

CPU = torch.device("cpu")
ALL_STAGES = (
    """
[[preprocess]]
stage = "bit-depth"
bits = 5

[[preprocess]]
stage = "jpeg"
quality = 80

[[preprocess]]
stage = "quantisation"
parameters = "tq.safetensors"
"""
    + CHAIN
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return staged_bundle(tmp_path_factory.mktemp("staged"))


def seeds_for(count: int, seed: int = 0) -> Tensor:
    return fresh_seeds(count, generator=torch.Generator().manual_seed(seed))


# Order and seeds


def test_the_stages_run_in_their_order_before_the_network(bundle: Bundle, tmp_path: Path) -> None:
    pictures, seeds = smooth_pictures(3), seeds_for(3)
    table = read_table(staged_folder(tmp_path) / "table.txt")
    # The second stage uses the picture's seed with the stage's number in the top bits.
    seen = distort(dct_quantise(pictures, table), seeds ^ (1 << 56), 0.2, 4)
    torch.testing.assert_close(bundle.logits(pictures, seeds), bundle.bare.logits(seen))
    assert bundle.random
    assert [stage.name for stage in bundle.stages] == ["dct-quantisation", "grid-distortion"]


def test_a_preprocessed_picture_does_not_depend_on_its_batch(bundle: Bundle) -> None:
    pictures, seeds = smooth_pictures(4), seeds_for(4)
    together = bundle.preprocess(pictures, seeds)
    for i in range(4):
        alone = bundle.preprocess(pictures[i : i + 1], seeds[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


def test_without_seeds_torchs_generator_is_used(bundle: Bundle) -> None:
    pictures = smooth_pictures(1)
    torch.manual_seed(3)
    first, second = bundle.preprocess(pictures), bundle.preprocess(pictures)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(bundle.preprocess(pictures), first)


def test_seeds_of_another_count_or_type_are_rejected(bundle: Bundle) -> None:
    for wrong in (seeds_for(2), seeds_for(3).float(), seeds_for(3)[:, None]):
        with pytest.raises(StageError, match=r"seeds: expected \(3,\) int64"):
            bundle.preprocess(smooth_pictures(3), wrong)


def test_the_seeds_of_tiles_sums_and_stages_are_distinct() -> None:
    seeds = seeds_for(50)
    tiles, sums = seeds_of_tiles(seeds, 30), seeds_of_sums(seeds, 100)
    assert torch.equal(tiles.view(50, 30)[:, 0], seeds)
    every = torch.cat((seeds_of_tiles(seeds, 30)[:].view(-1), sums.flatten()))
    stages = torch.cat([every ^ (number << 56) for number in range(16)])
    assert len(set(stages.tolist())) == len(stages)


def test_two_instances_of_a_stage_use_different_seeds(tmp_path: Path) -> None:
    twice = staged_bundle(tmp_path, '[[preprocess]]\nstage = "grid-distortion"\n' * 2)
    pictures, seeds = smooth_pictures(2), seeds_for(2)
    once = distort(pictures, seeds)
    assert not torch.equal(twice.preprocess(pictures, seeds), distort(once, seeds))


def test_a_frames_seed_depends_on_the_cameras_key_and_differs_from_its_mask_seed() -> None:
    key, other = (derive_camera_key(bytes([i]) * 32, CameraId("site/cam")) for i in (1, 2))
    seeds = {key.preprocess_seed(1, seq) for seq in range(200)}
    assert len(seeds) == 200
    assert not seeds & {other.preprocess_seed(1, seq) for seq in range(200)}
    assert not seeds & {key.preprocess_seed(2, seq) for seq in range(200)}
    masks = {first | second << 32 for first, second in (key.frame_seed(1, seq) for seq in range(200))}
    assert not {seed % 2**64 for seed in seeds} & masks
    assert min(seeds) < 0 < max(seeds)
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert key.preprocess_seed(1, 5) == derive_camera_key(bytes([1]) * 32, CameraId("site/cam")).preprocess_seed(1, 5)


@pytest.mark.parametrize("policy", ["resize", "crop", "tile"])
@pytest.mark.parametrize("channels", [1, 3])
def test_stages_work_under_every_policy(tmp_path: Path, policy: str, channels: int) -> None:
    bundle = staged_bundle(tmp_path, policy=policy)
    frames, seeds = smooth_pictures(2, channels, 70, 50), seeds_for(2)
    prepared = bundle.prepare(frames)
    seen = bundle.preprocess(prepared, seeds)
    assert seen.shape == prepared.shape
    torch.testing.assert_close(bundle.logits(prepared, seeds), bundle.network_logits(seen))
    if policy == "tile":
        tiles = bundle.preprocess(prepared.flatten(0, 1), seeds_of_tiles(seeds, prepared.shape[1]))
        torch.testing.assert_close(seen.flatten(0, 1), tiles, atol=1e-6, rtol=0)


# Gradients


def test_a_stage_has_a_gradient_exactly_if_it_is_declared_differentiable(tmp_path: Path) -> None:
    save_parameters(
        staged_folder(tmp_path, ALL_STAGES.replace("tq", "missing")) / "tq.safetensors",
        torch.tensor([0.5]),
        torch.tensor(9.0),
    )
    (tmp_path / "model.toml").write_text((tmp_path / "model.toml").read_text().replace("missing", "tq"))
    stages = load_bundle(tmp_path, CPU).stages
    assert {stage.name for stage in stages} == set(STAGES)
    for stage in stages:
        pictures = smooth_pictures(2).requires_grad_()
        (gradient,) = torch.autograd.grad(stage.run(pictures, seeds_for(2)).sum(), pictures)
        assert bool(gradient.any()) == stage.differentiable, stage.name


def test_straight_through_has_the_stages_result_and_the_identitys_gradient(bundle: Bundle) -> None:
    pictures, seeds = smooth_pictures(2).requires_grad_(), seeds_for(2)
    dct, grid = bundle.stages
    assert straight_through(grid) is grid
    through = straight_through(dct)
    torch.testing.assert_close(through.run(pictures, None), dct.run(pictures, None), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad((through.run(pictures, None) * 3).sum(), pictures)
    assert torch.equal(gradient, torch.full_like(gradient, 3))
    assert not torch.autograd.grad(bundle.logits(pictures, seeds).sum(), pictures)[0].any()
    assert torch.autograd.grad(bundle.passable.logits(pictures, seeds).sum(), pictures)[0].any()


def test_the_bare_bundle_keeps_the_stages_that_belong_to_the_network(tmp_path: Path) -> None:
    bundle = staged_bundle(tmp_path, '[[preprocess]]\nstage = "quantisation"\nlevels = 4\n' + CHAIN)
    assert [stage.name for stage in bundle.bare.stages] == ["quantisation"]


def test_low_precision_does_not_affect_the_stages(bundle: Bundle) -> None:
    pictures, seeds = smooth_pictures(2), seeds_for(2)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = preprocess(pictures, bundle.stages, seeds)
    torch.testing.assert_close(coarse, preprocess(pictures, bundle.stages, seeds), atol=0, rtol=0)


# Bundles


def test_without_stages_pictures_pass_unchanged() -> None:
    pictures = smooth_pictures(1)
    assert preprocess(pictures, []) is pictures


def test_the_digest_covers_the_stages_their_parameters_and_their_files(tmp_path: Path) -> None:
    plain = load_bundle(staged_folder(tmp_path / "plain", ""), CPU).model_id
    one = load_bundle(staged_folder(tmp_path / "one"), CPU).model_id
    other = load_bundle(staged_folder(tmp_path / "other", CHAIN.replace("0.2", "0.1")), CPU).model_id
    (tmp_path / "one" / "table.txt").write_text("30 30 30 30 30 30 30 30\n" * 8)
    table = load_bundle(tmp_path / "one", CPU).model_id
    assert len({plain, one, other, table}) == 4


def test_written_settings_are_read_back_unchanged(tmp_path: Path) -> None:
    from lab.training.bundle import to_toml

    folder = staged_folder(
        tmp_path / "a", ALL_STAGES.replace('parameters = "tq.safetensors"', "levels = 8\nsteepness = 20.0")
    )
    settings = read_settings(folder)
    again = shutil.copytree(folder, tmp_path / "b")
    (again / "model.toml").write_text(to_toml(settings.model_dump(exclude_none=True)))
    assert read_settings(again) == settings
    assert "preprocess" not in to_toml(read_settings(staged_folder(tmp_path / "c", "")).model_dump(exclude_none=True))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('stage = "blur"', "preprocess.0: stage: expected one of bit-depth, dct-quantisation, grid-distortion, jpeg, "),
        ("bits = 3", "preprocess.0: stage: expected one of bit-depth, .*quantisation, got None"),
        ('stage = "bit-depth"\nbits = 3\ndepth = 4', "bit-depth: depth: unknown parameter; expected bits$"),
        ('stage = "bit-depth"\nbits = 9', "bit-depth: bits: .*less than or equal to 8, got 9"),
        ('stage = "bit-depth"', "bit-depth: bits: Field required"),
        ('stage = "jpeg"\nquality = 0', "jpeg: quality: .*greater than or equal to 1, got 0"),
        ('stage = "jpeg"\nquality = 50\nsubsampling = "4:1:1"', "jpeg: subsampling: .*'4:4:4' or '4:2:0', got '4:1:1'"),
        ('stage = "grid-distortion"\nlimit = 1.5', "grid-distortion: limit: .*less than or equal to 1, got 1.5"),
        ('stage = "grid-distortion"\nlimit = nan', "grid-distortion: limit: .*finite number"),
        ('stage = "grid-distortion"\nsize = 8', "grid-distortion: size: unknown parameter; expected limit, cell$"),
        ('stage = "quantisation"', "quantisation: expected either levels or parameters"),
        ('stage = "quantisation"\nlevels = 1', "quantisation: levels: .*greater than or equal to 2, got 1"),
        ('stage = "quantisation"\nparameters = "x"\nsteepness = 3.0', "quantisation: steepness: expected none"),
        ('stage = "dct-quantisation"\ntable = "none.txt"', "preprocess.0: expected a file .*, got none named none.txt"),
        ('stage = "dct-quantisation"\ntable = "../t.txt"', "preprocess.0: expected a file inside the bundle's folder"),
        ('stage = "dct-quantisation"\ntable = ".t.txt"', "preprocess.0: expected a file that is not hidden"),
        ('stage = "dct-quantisation"\ntable = "model.toml"', "preprocess.0: model.toml: expected steps above 0"),
    ],
)  # fmt: skip
def test_an_invalid_stage_is_rejected_at_load_with_the_expected_values_in_one_line(
    tmp_path: Path, table: str, message: str
) -> None:
    folder = staged_folder(tmp_path, f"[[preprocess]]\n{table}\n")
    with pytest.raises(BundleError, match=message) as raised:
        load_bundle(folder, CPU)
    assert "\n" not in str(raised.value)


def test_a_custom_stage_can_be_used_without_a_bundle(bundle: Bundle) -> None:
    half = Stage("half", lambda pictures, seeds: pictures / 2, differentiable=True)
    assert torch.equal(preprocess(smooth_pictures(1), [half]), smooth_pictures(1) / 2)


def test_an_empty_batch_of_pictures_is_accepted(tmp_path: Path) -> None:
    tables = ALL_STAGES.replace('parameters = "tq.safetensors"', "levels = 8")
    bundle = staged_bundle(tmp_path, tables)
    assert bundle.preprocess(smooth_pictures(1)[:0], seeds_for(0)).shape == (0, 3, 32, 32)
