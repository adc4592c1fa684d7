"""The red team before a camera: targets, bounds, times, truth, and one-line errors for missing or invalid values."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from infra.local.mosquitto import Mosquitto
from producers.scene import SceneSimulator, paste_sticker
from producers.simulation.faults import FaultPlan
from producers.simulation.generator import Generator
from producers.simulation.generator_toml import GeneratorSettings, read_generator
from producers.simulation.lens import STRETCH, add, attack, direction_of, stretched
from producers.simulation.red_team import RedTeam
from producers.simulation.scenario import Fault, parse_scenario
from producers.sources.framing import resize
from producers.sources.source import CapturedFrame
from schemas.errors import ConfigError
from schemas.messages.frame import Truth, decode_picture
from schemas.pixels.packing import Picture
from tests.producers.fake_bridge import FakeBridge
from tests.producers.faulty_rig import frames_with_faults
from tests.producers.fleet_rig import keys_of, run
from tests.producers.stand_in_generator import CLASSES, EPS, patterns, write_generator

LEVELS = int(255 * EPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return Generator(folder)


def scene(index: int, size: tuple[int, int] = (32, 32), channels: int = 3) -> Picture:
    return SceneSimulator(0, 0, size, channels).render(index)[0]


def scenario(folder: object, *attacks: dict[str, object]) -> dict[str, object]:
    defaults = {"camera": "cam-0", "kind": "attack", "at_s": 1, "for_s": 2, "generator": str(folder)}
    return {
        "site": "a",
        "cameras": [{"name": "cam-{index}", "count": 3}],
        "faults": [defaults | each for each in attacks],
    }


def test_an_attack_has_defaults_and_the_scenario_overrides_its_cameras_bound_and_target(folder: Path) -> None:
    document = scenario(
        folder, {}, {"at_s": 3, "eps": 0.1, "target": "hazard"}, {"at_s": 3, "camera": ["cam-1", "cam-2"], "target": 3}
    )
    first, second, third = parse_scenario(document).faults
    assert (first.cameras, first.aim, first.eps) == (("cam-0",), "random", None)
    assert (second.aim, second.eps) == ("hazard", 0.1)
    assert (third.cameras, third.aim) == (("cam-1", "cam-2"), 3)


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        (
            [{"generator": "nowhere"}],
            r"faults\.0: generator: expected a folder with generator\.toml, or a shipped .*nowh",
        ),
        ([{"generator": "~nobody-here/x"}], r"faults\.0: generator: expected a folder .*got ~nobody-here/x"),
        ([{"generator": "x" * 300}], r"faults\.0: generator: expected a folder .*got xxx"),
        ([{"generator": None}], r"faults\.0: a fault of kind attack needs a generator"),
        ([{"eps": 0}], r"faults\.0\.eps: expected more than 0, got 0"),
        ([{"eps": 1.01}], r"faults\.0\.eps: expected at most 1, got 1\.01"),
        ([{"eps": float("nan")}], r"faults\.0\.eps: .*nan"),
        ([{"eps": 0.003}], r"faults\.0: expected eps of at least 1/255, one grey level, got 0\.003"),
        (
            [{"target": "unicorn"}],
            r"faults\.0: target: expected random, other, a class from 0 to 3, pause, .*'unicorn'",
        ),
        ([{"target": 4}], r"faults\.0: target: expected .* from 0 to 3, .* got 4"),
        ([{"target": True}], r"faults\.0\.target"),
        ([{"kind": "freeze"}], r"faults\.0: a fault of kind freeze has no generator"),
        ([{"camera": ["cam-1", "pier"]}], r"faults\.0\.camera: expected a camera of this fleet, got 'pier'"),
        ([{"camera": []}], r"faults\.0\.camera"),
        ([{}, {"at_s": 2.9}], r"faults\.1: expected one attack on cam-0 at a time, got faults\.0 as well"),
        ([{"camera": ["cam-2", "cam-1"]}, {}, {"at_s": 0, "camera": "cam-1"}], r"faults\.2: .*cam-1.*faults\.0"),
        ([{"for_s": 0}], r"faults\.0\.for_s"),
    ],
)
def test_an_invalid_attack_is_rejected_in_one_line_with_its_place_and_the_expected_value(
    folder: Path, attacks: list[dict[str, object]], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as raised:
        parse_scenario(scenario(folder, *attacks), "fleet.yaml")
    assert str(raised.value).startswith("fleet.yaml: ")
    assert "\n" not in str(raised.value)


def test_consecutive_attacks_and_attacks_on_other_cameras_do_not_overlap(folder: Path) -> None:
    document = scenario(folder, {}, {"at_s": 3}, {"camera": "cam-1"})
    assert len(parse_scenario(document).faults) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("height = 8", ""), "height: expected a value, got none"),
        (("channels = 3", "channels = 2"), "channels: expected 1 or 3, got 2"),
        (("eps = 0.03", "eps = 2"), "eps: expected at most 1, got 2"),
        (("name =", "name"), "generator.toml: expected TOML"),
    ],
)
def test_an_invalid_generator_description_is_rejected_in_one_line(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    attack_generator = write_generator(tmp_path / "generator")
    file = attack_generator / "generator.toml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ConfigError, match=expected) as raised:
        read_generator(attack_generator)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_generator_that_cannot_run_is_rejected_in_one_line(tmp_path: Path) -> None:
    foreign = write_generator(tmp_path / "foreign", inputs=("image", "targets"))
    with pytest.raises(ConfigError, match=r"expected the inputs .*pictures.* got .*image"):
        Generator(foreign)
    small = write_generator(tmp_path / "small")
    (small / "generator.toml").write_text((small / "generator.toml").read_text().replace("height = 8", "height = 9"))
    with pytest.raises(ConfigError, match=r"generator\.onnx: the generator: expected a network that runs") as raised:
        Generator(small)
    assert "\n" not in str(raised.value)
    broken = write_generator(tmp_path / "broken")
    (broken / "generator.onnx").write_bytes(b"no network")
    with pytest.raises(ConfigError, match="expected an ONNX network"):
        Generator(broken)
    (broken / "generator.onnx").unlink()
    with pytest.raises(ConfigError, match=r"generator\.onnx is missing"):
        Generator(broken)


def test_a_missing_onnxruntime_is_reported_with_its_extra_before_the_fleet_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    plan = parse_scenario(scenario(folder, {}))  # a generator's description is read without onnxruntime
    nowhere = SimpleNamespace(host="127.0.0.1", port=1)
    with pytest.raises(ConfigError, match=r"onnxruntime is missing.*Install pointillist\[redteam\]") as raised:
        asyncio.run(run(plan, nowhere, tmp_path))  # type: ignore[arg-type]  # an address without a broker
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_attack_runs_without_torch_and_parsing_a_scenario_without_onnxruntime(folder: Path) -> None:
    program = (
        "import sys\n"
        "import numpy as np, producers.simulation.simulated_fleet\n"
        "from producers.simulation.scenario import parse_scenario\n"
        f"plan = parse_scenario({scenario(folder, {})!r})\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "from producers.simulation.generator import Generator\n"
        "from producers.simulation.lens import attack\n"
        "from pathlib import Path\n"
        f"attack(np.zeros((9, 9, 3), np.uint8), Generator(Path({str(folder)!r})), 1, 0.1)\n"
        "assert 'onnxruntime' in sys.modules\n"
        "print(*[name for name in ('torch', 'onnx', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def settings_of(classes: tuple[str, ...] | int = CLASSES) -> GeneratorSettings:
    return GeneratorSettings(name="g", classes=classes, channels=3, height=8, width=8, eps=0.1)


def test_a_random_target_is_never_the_frames_class_and_the_other_classes_are_equally_frequent() -> None:
    drawn = Counter(settings_of().target_of("random", 2, position) for position in range(3000))
    assert set(drawn) == {0, 1, 3}
    assert min(drawn.values()) > 900
    assert [settings_of().target_of("random", 2, position) for position in range(20)] == [
        settings_of().target_of("random", 2, position) for position in range(20)
    ]


def test_the_target_other_is_the_next_class_and_any_class_if_the_frames_class_is_unknown() -> None:
    assert [settings_of().target_of("other", class_id, 5) for class_id in range(4)] == [1, 2, 3, 0]
    for target in ("random", "other"):
        assert {settings_of().target_of(target, None, position) for position in range(100)} == {0, 1, 2, 3}
        assert {settings_of(3).target_of(target, 7, position) for position in range(100)} == {0, 1, 2}


def test_a_target_class_is_given_by_name_or_number() -> None:
    assert settings_of().target_of("give-way", 0, 0) == 2
    assert settings_of(10).target_of(7, 0, 0) == 7
    with pytest.raises(ConfigError, match="from 0 to 9, got 'give-way'"):
        settings_of(10).check_target("give-way")


@settings(deadline=None, max_examples=80)
@given(
    hnp.arrays(np.uint8, (3, 4, 3)),
    hnp.arrays(np.float32, (3, 4, 3), elements=st.floats(-1, 1, width=32)),
    st.floats(1 / 255, 1),
)
def test_a_changed_pixel_stays_within_the_bound_at_the_level_nearest_to_the_requested_one(
    picture: Picture, direction: np.ndarray, eps: float
) -> None:
    changed = add(picture, direction, eps)
    moved = np.abs(changed.astype(int) - picture)
    assert changed.dtype == np.uint8
    assert moved.max() <= 255 * eps + 1e-6
    requested = np.clip(picture + 255 * eps * direction.astype(float), 0, 255)
    # Half a level for rounding, and less than one more if a whole level would exceed the bound.
    assert np.abs(changed - requested).max() < 1
    inside = moved < int(255 * eps + 1e-6)
    assert np.abs(changed - requested)[inside].max(initial=0) <= 0.5 + 1e-3


@pytest.mark.parametrize("levels", [1, 4, 8, 16])
def test_a_bound_of_whole_levels_is_used_in_full(levels: int) -> None:
    picture = np.full((2, 2, 3), 100, np.uint8)
    changed = add(picture, np.array([[[1, -1, 0]] * 2] * 2, np.float32), levels / 255)
    assert changed[0, 0].tolist() == [100 + levels, 100 - levels, 100]


def test_the_direction_for_a_frame_of_the_generators_size_is_not_resized(generator: Generator) -> None:
    picture = scene(0, (16, 16))[4:12, 4:12]
    expected = patterns(len(CLASSES), 3, 8)[2]
    assert np.array_equal(direction_of(picture, generator, 2), expected)
    assert np.array_equal(attack(picture, generator, 2, EPS), add(picture, expected.transpose(1, 2, 0), EPS))


def test_the_direction_for_a_larger_frame_is_enlarged_bilinearly_and_stretched(generator: Generator) -> None:
    picture = scene(0, (48, 64))
    small = torch.from_numpy(patterns(len(CLASSES), 3, 8)[1:2])
    large = STRETCH * torch.nn.functional.interpolate(small, (48, 64), mode="bilinear", align_corners=False)[0].numpy()
    for plane, expected in zip(small[0].numpy(), large, strict=True):
        np.testing.assert_allclose(stretched(plane, 48, 64), expected, atol=1e-5)
    expected_picture = add(picture, large.transpose(1, 2, 0).clip(-1, 1), EPS)
    difference = attack(picture, generator, 1, EPS).astype(int) - expected_picture
    assert np.abs(difference).max() <= 1  # rounding of values close to one half
    assert (difference != 0).mean() < 0.01


def test_resampling_to_the_networks_size_keeps_most_of_an_attack_on_a_larger_frame(tmp_path: Path) -> None:
    checks = np.indices((8, 8)).sum(0) % 2 * np.float32(2) - 1  # the finest pattern, which resampling weakens most
    attack_generator = Generator(write_generator(tmp_path / "checks", direction=np.broadcast_to(checks, (4, 3, 8, 8))))
    picture = np.full((64, 64, 3), 128, np.uint8)
    moved = torch.from_numpy(attack(picture, attack_generator, 0, 16 / 255).astype(np.float32) - 128).permute(2, 0, 1)[
        None
    ]
    seen = torch.nn.functional.interpolate(moved, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    plain = torch.nn.functional.interpolate(
        16 * torch.from_numpy(checks.copy())[None, None], (64, 64), mode="bilinear", align_corners=False
    )
    unstretched = torch.nn.functional.interpolate(plain, (8, 8), mode="bilinear", align_corners=False, antialias=True)
    inside = (..., slice(1, -1), slice(1, -1))  # the border is stronger with and without stretching
    assert seen[inside].abs().mean() > 1.8 * unstretched[inside].abs().mean()


def test_the_generator_receives_the_whole_frame_at_its_own_size_in_0_to_1(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[np.ndarray] = []

    def direction(pictures: np.ndarray, targets: np.ndarray) -> np.ndarray:
        inputs.append(pictures)
        return np.zeros_like(pictures)

    monkeypatch.setattr(generator, "direction", direction)
    picture = scene(3, (48, 64))
    direction_of(picture, generator, 1)
    (seen,) = inputs
    assert seen.shape == (1, 3, 8, 8)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen[0].transpose(1, 2, 0), resize(picture, (8, 8)) / 255, atol=1e-6)


def test_grey_frames_and_grey_generators_stay_within_the_bound(generator: Generator, tmp_path: Path) -> None:
    grey = scene(0, (24, 40), 1)
    changed = attack(grey, generator, 1, EPS)
    assert changed.shape == grey.shape
    assert 0 < np.abs(changed.astype(int) - grey).max() <= LEVELS
    of_grey = Generator(write_generator(tmp_path / "grey", channels=1))
    colour = scene(0, (24, 40))
    moved = attack(colour, of_grey, 1, EPS).astype(int) - colour
    inside = (colour > LEVELS) & (colour < 255 - LEVELS)
    every = inside.all(2)
    assert every.any()
    assert np.array_equal(moved[every][:, 0], moved[every][:, 2])


def test_directions_beyond_the_bounds_are_clipped_to_them(tmp_path: Path) -> None:
    wild = np.zeros((4, 3, 8, 8), np.float32)
    wild[:, 0], wild[:, 1], wild[:, 2] = 7, np.nan, -np.inf
    attack_generator = Generator(write_generator(tmp_path / "wild", direction=wild))
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert attack(picture, attack_generator, 0, EPS)[0, 0].tolist() == [100 + LEVELS, 100, 100 - LEVELS]


def captured(position: int, label: int | None = 3) -> CapturedFrame:
    return CapturedFrame(scene(position), position, None if label is None else Truth(label))


def attacked(folder: Path, pictures: list[tuple[CapturedFrame, int]], **fields: object) -> list[CapturedFrame]:
    """Return a camera's frames under an attack that begins after two seconds and a sticker that begins after four."""
    defaults = {"camera": "c", "at_s": 2, "kind": "attack", "for_s": 3, "generator": str(folder), "eps": EPS}
    faults = [Fault.model_validate(defaults | fields), Fault(camera="c", at_s=4, kind="sticker", for_s=2)]
    plan = FaultPlan(faults)
    plan.begin(50_000)
    return frames_with_faults(plan, pictures, RedTeam([str(folder)]))


def test_an_attack_lasts_from_its_start_for_its_duration_and_keeps_the_truth(folder: Path) -> None:
    seen = attacked(folder, [(captured(second), 50_000 + 1000 * second) for second in range(7)], target="other")
    assert [each.truth for each in seen] == [
        *[Truth(3)] * 2, *[Truth(3, attacked=True)] * 2, Truth(3, True, attacked=True), Truth(3, True), Truth(3)
    ]  # fmt: skip
    assert [each.position for each in seen] == list(range(7))
    for second in (0, 1, 6):
        assert np.array_equal(seen[second].picture, captured(second).picture)
    for second, before in ((2, captured(2).picture), (3, captured(3).picture), (4, paste_sticker(scene(4)))):
        moved = np.abs(seen[second].picture.astype(int) - before)
        assert 0 < moved.max() <= LEVELS


def test_the_same_frame_is_attacked_identically_after_a_restart(folder: Path) -> None:
    first, second = [attacked(folder, [(captured(9), 52_000)])[0].picture for _ in range(2)]
    assert np.array_equal(first, second)


def test_a_frame_of_the_target_class_is_neither_changed_nor_marked(folder: Path) -> None:
    same, other = attacked(folder, [(captured(1), 52_000), (captured(1, 0), 52_000)], target="hazard")
    assert (same.truth, np.array_equal(same.picture, captured(1).picture)) == (Truth(3), True)
    assert other.truth == Truth(0, attacked=True)


def test_frames_of_an_unknown_class_are_attacked_without_a_truth(folder: Path) -> None:
    [seen] = attacked(folder, [(captured(1, None), 52_000)])
    assert seen.truth is None
    assert not np.array_equal(seen.picture, captured(1).picture)


def test_the_bound_is_the_generators_if_the_scenario_sets_none(folder: Path) -> None:
    [seen] = attacked(folder, [(captured(1), 52_000)], eps=None)
    assert np.abs(seen.picture.astype(int) - captured(1).picture).max() == LEVELS


@pytest.mark.brokers
async def test_a_fleet_publishes_the_attacked_pictures_and_marks_them(
    folder: Path, mosquitto: Mosquitto, bridge: FakeBridge, state_dir: Path
) -> None:
    document = scenario(folder, {"camera": ["cam-0", "cam-2"], "at_s": 0.5, "for_s": 3})
    plan = parse_scenario(document | {"site": "red-team", "defaults": {"fps": 10, "source": {"kind": "scene"}}})
    outcome = await run(plan, mosquitto, state_dir, run_s=6)
    assert outcome.drained
    begun_ms = min(frame.captured_ms for frame in bridge.frames.values())
    attacked_ms: dict[str, list[int]] = defaultdict(list)
    for identity, frame in bridge.frames.items():
        truth = Truth.from_wire(frame.truth)
        number = int(identity.camera_id[-1])
        picture, label = SceneSimulator(0, number, (32, 32)).render(identity.seq)
        image, kept = decode_picture(keys_of(plan)[identity.camera_id], frame)
        moved = np.abs(image.astype(int) - picture)[kept]
        assert truth is not None
        assert truth.class_id == label
        assert (moved.max() > 0) == truth.attacked
        assert moved.max() <= LEVELS
        if truth.attacked:
            attacked_ms[identity.camera_id].append(frame.captured_ms)
    assert attacked_ms.keys() == {"red-team/cam-0", "red-team/cam-2"}
    for times_ms in attacked_ms.values():
        assert len(times_ms) >= 4
        assert begun_ms < min(times_ms)
        # A busy machine attacks a frame up to a second after its capture. Without an end it would be 5.5 s.
        assert max(times_ms) - min(times_ms) <= 4000
