"""The backends that run networks on a CPU: torch's verdicts, and the choice of the fastest within its tolerance."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from torch import Tensor, nn

from processors.bundle import Bundle, load_bundle, shipped_bundle
from processors.bundle.formats import Network
from processors.device.backends import choose as module
from processors.device.backends.choose import BackendChoice, BackendRequest, check_request, choose
from processors.device.backends.contract import BackendName, CpuPrecision, UnsupportedNetworkError
from processors.device.backends.engines import RESTORED, TOLERANCE, _same_logits, engines, restorer_inputs, restorers
from processors.device.backends.int8 import largest_weight
from processors.device.backends.openvino_cpu import OpenVino, _powers
from processors.device.loaded_model import load_model
from processors.metrics import ProcessorMetrics
from processors.pipeline import Pipeline
from processors.settings import ProcessorSettings
from processors.stages.learned import Restorers, reconstruct_learned
from schemas.errors import BundleError, ConfigError
from tests.processors.tiny import tiny_bundle, write_bundle

needs_openvino = pytest.mark.skipif(bool(OpenVino().lacks()), reason="needs OpenVINO")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Scaled(nn.Module):
    """Logits (B, 2): the mean of each picture and its opposite, times `factor`."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack((mean, -mean), 1) * self.factor


class FakeNetwork:
    def __init__(self, factors: dict[CpuPrecision, float], broken: str) -> None:
        self._factors, self._broken = factors, broken

    def at(self, precision: CpuPrecision, calibration: Tensor | None = None, exact_first: bool = False) -> Network:
        if precision == self._broken:
            raise RuntimeError("an input of float16")
        return Scaled(self._factors[precision])

    def save(self, precision: CpuPrecision, file: Path) -> None:
        file.write_text(str(self._factors[precision]))


class FakeBackend:
    """A backend that runs `Scaled` in each precision, with outputs off by a factor."""

    name = "openvino"

    def __init__(
        self, factors: dict[CpuPrecision, float], lacks: str = "", unsuited: bool = False, broken: str = ""
    ) -> None:
        """`broken` is the precision that raises, or `all`."""
        self._factors, self._lacks, self._unsuited, self._broken = factors, lacks, unsuited, broken

    def lacks(self) -> str:
        return self._lacks

    def precisions(self) -> Sequence[CpuPrecision]:
        return list(self._factors)

    def convert(self, network: Network, example: Tensor, free_sides: bool) -> FakeNetwork:
        if self._unsuited:
            raise UnsupportedNetworkError("openvino: no such network")
        if self._broken == "all":
            raise RuntimeError("no such layer")
        return FakeNetwork(self._factors, self._broken)

    def restore(self, file: Path, precision: CpuPrecision) -> Network:
        return Scaled(float(file.read_text()))


def within(exact: Tensor, got: Tensor, precision: CpuPrecision) -> str:
    return "" if torch.allclose(exact, got, rtol=0.1) else "too far"


def chosen(
    monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, seconds: list[float], wanted: BackendRequest
) -> BackendChoice:
    monkeypatch.setattr(module, "BACKENDS", (backend,))
    monkeypatch.setattr(module, "trial", lambda networks, inputs: seconds[: len(networks)])
    allowed: tuple[CpuPrecision, ...] = ("float32", "bf16")
    return choose(Scaled(), torch.rand(4, 3, 8, 8), wanted, fits=within, allowed=allowed)


ALL: dict[CpuPrecision, float] = {"float32": 1.0, "bf16": 1.05, "int8": 1.0}


@pytest.mark.parametrize(
    ("backend", "seconds", "runs"),
    [
        (FakeBackend(ALL), [1.0, 0.5, 0.6], "openvino float32"),
        (FakeBackend(ALL), [1.0, 1.2, 1.3], "torch float32"),
        (FakeBackend(ALL), [1.0, 0.5, 0.3], "openvino bf16"),
        # A gain of a tenth does not justify a lower precision.
        (FakeBackend(ALL), [1.0, 0.5, 0.45], "openvino float32"),
        # int8 is not allowed.
        (FakeBackend(ALL), [1.0, 0.9, 0.9, 0.01], "openvino float32"),
        (FakeBackend({"float32": 2.0, "bf16": 0.0}), [1.0, 0.01, 0.01], "torch float32"),
        (FakeBackend(ALL, unsuited=True), [1.0], "torch float32"),
        (FakeBackend(ALL, broken="all"), [1.0], "torch float32"),
        # If one precision fails, another is chosen.
        (FakeBackend(ALL, broken="float32"), [1.0, 0.3], "openvino bf16"),
        (FakeBackend(ALL, broken="bf16"), [1.0, 0.3], "openvino float32"),
        (FakeBackend(ALL, lacks="the package openvino"), [1.0], "torch float32"),
    ],
)
def test_the_fastest_backend_within_tolerance_is_chosen_and_low_precision_needs_a_clear_gain(
    monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, seconds: list[float], runs: str
) -> None:
    assert str(chosen(monkeypatch, backend, seconds, BackendRequest())) == runs


@pytest.mark.parametrize(
    ("backend", "wanted", "message"),
    [
        (FakeBackend(ALL), BackendRequest(precision="int8"), "^int8: expected a network .*, got int8 is not allowed"),
        (FakeBackend(ALL, unsuited=True), BackendRequest("openvino"),
         "^openvino: expected a network that can be run so, got openvino: no such network"),
        (FakeBackend(ALL, broken="all"), BackendRequest("openvino"),
         "^openvino: expected a network that can be run so, got openvino: no such layer"),
        (FakeBackend(ALL, broken="float32"), BackendRequest("openvino", "float32"),
         "^openvino float32: expected a network .*, got openvino float32: an input of float16"),
    ],
)  # fmt: skip
def test_a_requested_backend_or_precision_that_the_network_does_not_allow_is_rejected(
    monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, wanted: BackendRequest, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(monkeypatch, backend, [1.0], wanted)


@needs_openvino
@pytest.mark.parametrize("step", ["_converted", "_compiled"])
def test_a_memory_error_is_raised_instead_of_a_fallback_to_torch(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def lacking(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"processors.device.backends.openvino_cpu.{step}", lacking)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    with pytest.raises(MemoryError):
        choose(network, torch.rand(4, 3, 8, 8), BackendRequest(), fits=within)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_logits_that_differ_by_more_than_the_tolerance_are_rejected(precision: CpuPrecision) -> None:
    exact = torch.tensor([[0.0, 10.0, 4.0], [3.0, 1.0, 2.0]])
    within, beyond = (exact + share * TOLERANCE[precision] * 10 for share in (0.9, 1.1))
    assert _same_logits(exact, within, precision) == ""
    assert "an output moves by" in _same_logits(exact, beyond, precision)


ABSENT, PLAIN = FakeBackend(ALL, lacks="the package openvino"), FakeBackend({"float32": 1.0})


@pytest.mark.parametrize(
    ("backend", "wanted", "message"),
    [
        (ABSENT, BackendRequest("openvino"), "^backend openvino: expected the package openvino, got none"),
        (
            ABSENT,
            BackendRequest(precision="int8"),
            "^precision int8: expected a processor and a backend with it, got fl",
        ),
        (PLAIN, BackendRequest(precision="bf16"), "^precision bf16: expected .*, got float32"),
        (PLAIN, BackendRequest("torch", "bf16"), "^precision bf16: expected another backend, got torch"),
    ],
)
def test_a_requested_backend_or_precision_that_the_machine_lacks_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, wanted: BackendRequest, message: str
) -> None:
    monkeypatch.setattr(module, "BACKENDS", (backend,))
    with pytest.raises(ConfigError, match=message):
        check_request(wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "openvino"}, "^backend openvino: expected the package openvino"),
        ({"precision": "tf32"}, "^precision tf32: expected the device cuda, got cpu"),
        ({"compile": True}, "^compile: expected the device cuda, got cpu"),
    ],
)
async def test_a_processor_does_not_start_with_an_option_that_its_machine_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(module, "BACKENDS", (FakeBackend(ALL, lacks="the package openvino"),))
    settings = ProcessorSettings.model_validate({"kafka": "none", "bundle": tmp_path, "device": "cpu"} | changes)
    with pytest.raises(ConfigError, match=message):
        await load_model(settings, ProcessorMetrics(CollectorRegistry()), write_bundle(tmp_path))


def test_networks_that_run_within_a_tick_of_the_clock_count_as_equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.device.backends.choose.time.process_time", lambda: 1.0)
    monkeypatch.setattr(module, "BACKENDS", (FakeBackend(ALL),))
    assert str(choose(Scaled(), torch.rand(4, 3, 8, 8), BackendRequest(), fits=within)) == "torch float32"


@pytest.mark.parametrize(
    ("outcomes", "calls"), [("ffffff", 3), ("ffsffsfff", 9)], ids=["fails always", "succeeds now and then"]
)
def test_a_batch_that_a_backend_fails_on_runs_on_torch_and_three_in_a_row_abandon_it(outcomes: str, calls: int) -> None:
    left = list(outcomes)

    def backend(x: Tensor) -> Tensor:
        if left.pop(0) == "f":
            raise RuntimeError("an instruction that is not there")
        return scaled(x)

    scaled: Callable[[Tensor], Tensor] = Scaled()
    lasting = module._FallbackNetwork(backend, Scaled())
    x = torch.rand(2, 3, 8, 8)
    for _ in range(len(outcomes) + 1):
        assert torch.equal(lasting(x), Scaled()(x))
    assert len(outcomes) - len(left) == calls


def test_a_batch_for_which_a_backend_lacks_memory_is_left_to_its_caller_who_halves_it() -> None:
    def backend(x: Tensor) -> Tensor:
        if len(x) > 1:
            raise RuntimeError("std::bad_alloc")
        return scaled(x) + 1

    scaled: Callable[[Tensor], Tensor] = Scaled()
    lasting = module._FallbackNetwork(backend, Scaled())
    x = torch.rand(2, 3, 8, 8)
    for _ in range(4):
        with pytest.raises(RuntimeError, match="bad_alloc"):
            lasting(x)
    assert torch.equal(lasting(x[:1]), Scaled()(x[:1]) + 1)


def test_a_single_frame_for_which_a_backend_lacks_memory_runs_on_torch_and_does_not_abandon_the_backend() -> None:
    lacks = True

    def backend(x: Tensor) -> Tensor:
        if lacks:
            raise RuntimeError("std::bad_alloc")
        return scaled(x) + 1

    scaled: Callable[[Tensor], Tensor] = Scaled()
    lasting = module._FallbackNetwork(backend, Scaled())
    x = torch.rand(1, 3, 8, 8)
    for _ in range(module.FAILURES + 1):
        assert torch.equal(lasting(x), Scaled()(x))
    lacks = False
    assert torch.equal(lasting(x), Scaled()(x) + 1)


@given(st.integers(0, 1000))
def test_batches_are_split_into_powers_of_two_that_add_up_to_the_whole(count: int) -> None:
    parts = _powers(count)
    assert sum(parts) == count
    assert parts == sorted(parts, reverse=True)
    assert all(part & (part - 1) == 0 and part <= 64 for part in parts)


# OpenVINO compared with torch, on the shipped bundles


@cache
def shipped(name: str) -> Bundle:
    return load_bundle(shipped_bundle(name), CPU)


@cache
def loaded_restorers(backend: BackendName, precision: CpuPrecision = "float32") -> Restorers:
    return restorers(BackendRequest(backend, precision), 1)[1]


@needs_openvino
@pytest.mark.parametrize("name", ["cifar10", "scene"])
@torch.inference_mode()
def test_openvino_gives_torchs_logits_on_the_shipped_networks_for_any_batch(name: str) -> None:
    bundle = shipped(name)
    assert bundle.overlays is not None
    inputs = bundle.normalised(bundle.overlays[:70])
    converted = OpenVino().convert(bundle.network, inputs[:4], False).at("float32")
    exact = bundle.network(inputs)
    tolerance = TOLERANCE["float32"] * float(exact.amax() - exact.amin())
    for count in (1, 3, 37, 70):
        torch.testing.assert_close(converted(inputs[:count]), exact[:count], atol=tolerance, rtol=0)


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("size", [(32, 32), (21, 45)])
@torch.inference_mode()
def test_the_restorer_stays_within_its_tolerance_in_every_precision_and_size(
    precision: CpuPrecision, size: tuple[int, int]
) -> None:
    if precision not in OpenVino().precisions():
        pytest.skip("not on this processor")
    both, exact = loaded_restorers("openvino", precision), loaded_restorers("torch")
    seen = restorer_inputs(False)
    frames, kept = (nn.functional.interpolate(x[:5], size) for x in (seen[:, :3] + 0.5, seen[:, 3:]))
    got, wanted = (reconstruct_learned(frames, kept > 0.5, each.of(*size)) for each in (both, exact))
    assert float((wanted - frames).abs().amax()) > 0.01
    assert float((got - wanted).square().mean().sqrt()) <= RESTORED[precision]


@needs_openvino
@torch.inference_mode()
def test_the_restorer_of_large_frames_agrees_with_torch() -> None:
    both, exact = loaded_restorers("openvino", "float32"), loaded_restorers("torch")
    frames, kept = torch.rand(1, 3, 136, 144), torch.rand(1, 1, 136, 144) > 0.25
    got, wanted = (reconstruct_learned(frames, kept, each.of(136, 144)) for each in (both, exact))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


@needs_openvino
@torch.inference_mode()
def test_the_8_bit_restorer_of_large_frames_stays_close_because_its_first_layer_is_exact() -> None:
    if "int8" not in OpenVino().precisions():
        pytest.skip("not on this processor")
    seen = restorer_inputs(True)
    both, exact = loaded_restorers("openvino", "int8"), loaded_restorers("torch")
    filled, kept = seen[:32, :3] + 0.5, seen[:32, 3:]
    got, wanted = (each.large(filled, kept) for each in (both, exact))
    assert not torch.equal(got, wanted)
    moved = float((got - wanted).square().mean().sqrt())
    # Weights of half as many steps round to twice the error.
    most = 0.2 * 127 / largest_weight()
    assert moved < most * float((wanted - filled).square().mean().sqrt())


@needs_openvino
@torch.inference_mode()
def test_the_whole_chain_gives_the_same_verdicts_through_openvino(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    pipeline, found = engines(bundle, BackendRequest("openvino", "float32"))
    assert found.runs == (("classifier", "openvino", "float32"), ("restorer", "openvino", "float32"))
    frames, kept = torch.rand(7, 3, 40, 36), torch.rand(7, 1, 40, 36) > 0.25
    got, wanted = pipeline(frames, kept), Pipeline(bundle)(frames, kept)
    assert torch.equal(got.class_id, wanted.class_id)
    torch.testing.assert_close(got.confidence, wanted.confidence, atol=1e-4, rtol=0)


@needs_openvino
def test_a_network_whose_branches_depend_on_values_is_not_exported() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """Compute bright batches in another way than dark ones."""
            return x.mean((2, 3)) if bool(x.mean() > 0.5) else -x.mean((2, 3))

    with pytest.raises(UnsupportedNetworkError, match=r"its way depends on values: Converting a tensor"):
        OpenVino().convert(Branching(), torch.rand(2, 3, 8, 8), False)


@pytest.mark.parametrize(
    ("machine", "flags", "largest"),
    [("x86_64", {"avx2"}, 63), ("x86_64", {"avx2", "avx_vnni"}, 127), ("x86_64", {"avx512_vnni"}, 127),
     ("aarch64", set(), 127)],
)  # fmt: skip
def test_weights_are_smaller_where_products_are_added_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: set[str], largest: int
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("processors.device.backends.int8.cpu_flags", lambda: frozenset(flags))
    assert largest_weight() == largest


@needs_openvino
@pytest.mark.parametrize("signed", [True, False])
def test_8_bit_integers_are_steps_of_the_calibrations_range_and_of_each_channels_weights(signed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(4, 3, 1, bias=True).eval().requires_grad_(False)
    x = torch.rand(16, 4, 2, 2, generator=generator) - (0.4 if signed else 0)
    run = OpenVino().convert(layer, x[:2], False).at("int8", x)
    low, high = float(x.min()), float(x.max())
    step, zero = (max(-low / 128, high / 127), 128) if signed else (high / 255, 0)
    levels = (x / step).round().clamp(-zero, 255 - zero) * step
    weights = layer.weight
    unit = weights.abs().amax((1, 2, 3), keepdim=True) / largest_weight()
    wanted = nn.functional.conv2d(levels, (weights / unit).round() * unit, layer.bias)
    torch.testing.assert_close(run(x), wanted, atol=1e-4, rtol=0)
    assert float((run(x) - layer(x)).abs().max()) > 1e-4


@needs_openvino
def test_openvino_sends_no_telemetry() -> None:
    OpenVino().convert(nn.Conv2d(3, 3, 1).eval(), torch.rand(1, 3, 8, 8), False).at("float32")
    assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]


# Users' networks in 8-bit integers


def int8_bundle(folder: Path, calibration: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Path:
    write_bundle(folder)
    table = folder / "model.toml"
    text = table.read_text().replace("classes =", 'precision = "int8"\ncalibration = "calibration.npy"\nclasses =', 1)
    table.write_text(text)
    np.save(folder / "calibration.npy", calibration)
    return folder


def noise(count: int = 32, side: int = 32) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@needs_openvino
def test_a_bundle_that_allows_8_bit_integers_runs_in_them(tmp_path: Path) -> None:
    bundle = load_bundle(int8_bundle(tmp_path / "int8", noise()), CPU)
    plain = tiny_bundle(tmp_path / "float32")
    assert bundle.model_id != plain.model_id
    _, found = engines(bundle, BackendRequest("openvino", "int8"), "plate")
    assert found.runs == (("classifier", "openvino", "int8"),)
    with pytest.raises(
        BundleError, match=r"tiny@1.*int8: expected a network that can be run so, got int8 is not allowed for it"
    ):
        engines(plain, BackendRequest("openvino", "int8"), "plate")


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (noise(side=24), r"calibration.npy: expected uint8 \(N, 32, 32, 3\), got uint8 \(32, 24, 24, 3\)"),
        (noise(15), "calibration.npy: expected 16 to 1024 pictures, got 15"),
    ],
)
def test_a_calibration_of_another_shape_is_rejected_when_the_bundle_is_loaded(
    tmp_path: Path, pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(int8_bundle(tmp_path, pictures), CPU)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('precision = "int8"', "precision int8: expected a calibration, got none"),
        ('calibration = "calibration.npy"', "precision float32: expected no calibration, got 'calibration.npy'"),
        ('precision = "int4"', "precision: "),
    ],
)
def test_int8_needs_a_calibration_and_float32_rejects_one(tmp_path: Path, line: str, message: str) -> None:
    folder = write_bundle(tmp_path)
    table = folder / "model.toml"
    table.write_text(table.read_text().replace("classes =", f"{line}\nclasses =", 1))
    with pytest.raises(BundleError, match=message):
        load_bundle(folder, CPU)


@needs_openvino
async def test_a_calibration_that_does_not_cover_the_networks_range_is_rejected_at_load(tmp_path: Path) -> None:
    black = np.full((16, 32, 32, 3), 127, np.uint8)
    folder = int8_bundle(tmp_path, black)
    settings = ProcessorSettings(kafka="none", bundle=folder, device="cpu", mode="plate", threads=1)
    with pytest.raises(BundleError, match=r"the calibration: expected int8 to keep .* of the classes"):
        await load_model(settings, ProcessorMetrics(CollectorRegistry()), folder)


# Metrics and memory


@needs_openvino
async def test_metrics_name_the_backend_and_precision_of_each_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    registry = CollectorRegistry()
    metrics = ProcessorMetrics(registry)
    # A fixed precision: of a network this small, chance decides whether bf16 or float32 is measured as the faster one.
    settings = ProcessorSettings(
        kafka="none", bundle=folder, device="cpu", backend="openvino", precision="float32", mode="plate", threads=1
    )
    loaded = await load_model(settings, metrics, folder)
    loaded.close()
    metrics.serves(loaded.model_id, loaded.runs)
    labels = {"network": "classifier", "backend": "openvino", "precision": "float32"}
    assert registry.get_sample_value("pointillist_backend_info", labels) == 1
    metrics.serves("another", (("classifier", "torch", "float32"),))
    assert registry.get_sample_value("pointillist_backend_info", labels) is None


def test_the_memory_of_a_converted_network_is_released_with_it() -> None:
    """Convert many networks: torch keeps each trace with its weights unless the traces are cleared."""
    process, example = psutil.Process(), torch.rand(1, 2048)
    functions: Callable[[], list[object]] = torch.jit._state._python_cu.get_functions  # type: ignore[assignment]  # its stub
    others = len(functions())  # those of other tests

    def load() -> int:
        network = nn.Sequential(nn.Linear(2048, 1024)).eval()
        OpenVino().convert(network, example, free_sides=False)
        assert len(functions()) == others
        gc.collect()
        return int(process.memory_info().rss)

    gc.freeze()  # the collections need not traverse the objects of all earlier tests
    try:
        before = [load() for _ in range(3)][-1]
        # Each network is 8 MiB.
        assert [load() for _ in range(12)][-1] - before < 40 * 2**20
    finally:
        gc.unfreeze()


@needs_openvino
@pytest.mark.parametrize("cause", ["Failed to allocate 72000000 bytes of memory", "std::bad_alloc"])
def test_openvino_reports_a_lack_of_memory_as_a_plain_runtime_error(
    monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    def lacking(*_: object) -> None:
        raise RuntimeError(f"Exception from src/inference/src/cpp/core.cpp:117:\n{cause}\n\n")

    monkeypatch.setattr("processors.device.backends.openvino_cpu._compiled", lacking)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    with pytest.raises(MemoryError, match="openvino float32: expected enough memory"):
        choose(network, torch.rand(4, 3, 8, 8), BackendRequest(), fits=within)
