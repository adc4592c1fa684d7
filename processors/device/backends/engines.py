"""The CPU backends of one model: its own network, and the restorer that ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import as_file, files
from threading import Lock
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from processors.bundle import Bundle
from processors.bundle.formats import Network
from processors.device.backends.choice_cache import ChoiceCache
from processors.device.backends.choose import BackendChoice, BackendRequest, RunsOn, choose
from processors.device.backends.contract import CpuPrecision
from processors.networks.filler import Filler
from processors.networks.restorer import Restorer, restored, seen
from processors.pipeline import Pipeline
from processors.stages.learned import Restorers, shipped_filler, shipped_restorer
from processors.stages.modes import DenoiseSettings, Mode
from processors.stages.plate import reconstruct_plate
from schemas.errors import BundleError, ConfigError

TOLERANCE: Final = {"float32": 1e-3, "bf16": 0.02}
"""Tolerance of a logit as a share of the range of all logits; no class may change beyond it."""
ERROR: Final = 0.3
"""Tolerance of 8-bit outputs as a share of the outputs' own spread between pictures, by root mean squares."""
AGREEMENT: Final = 0.9
"""Share of pictures whose class 8-bit integers must not change, for a calibration that fits its network."""
RESTORED: Final = {"float32": 1e-4, "bf16": 4e-3, "int8": 4e-3}
"""Tolerance of restored pixels in [0, 1], by root mean square."""
DROPPED: Final = (0.1, 0.25, 0.5, 0.75)
"""Shares of missing pixels in the restorer's calibration, in turns."""
_TRIED: Final = 32
"""Limit of pictures in a trial's batch, and of `_TRIED_PIXELS` together."""
_TRIED_PIXELS: Final = 2**18


@dataclass(frozen=True, slots=True)
class Engines:
    """The chosen backends. `restorer` is None if nothing is restored."""

    classifier: BackendChoice
    restorer: BackendChoice | None = None

    @property
    def runs(self) -> tuple[RunsOn, ...]:
        """The chosen backends in words."""
        chosen = {"classifier": self.classifier, "restorer": self.restorer}
        return tuple(RunsOn(name, each.backend, each.precision) for name, each in chosen.items() if each is not None)


def engines(
    bundle: Bundle,
    request: BackendRequest,
    mode: Mode = "default",
    denoise: DenoiseSettings | None = None,
    cache: ChoiceCache | None = None,
) -> tuple[Pipeline, Engines]:
    """Return the chain of a bundle on the CPU, with the fastest backends that `request` allows.

    The chain runs with as many threads as torch has in this thread. `cache` holds earlier choices. Raises ConfigError
    for a missing requirement of this machine, BundleError if the bundle's calibration does not fit.
    """
    classifier = _classifier(bundle, request, cache)
    fast = replace(bundle, network=classifier.network)
    if mode != "default":
        return Pipeline(fast, mode, denoise), Engines(classifier)
    restorer, both = restorers(request, torch.get_num_threads(), cache)
    return Pipeline(fast, mode, denoise, both), Engines(classifier, restorer)


# The bundle's network


def _classifier(bundle: Bundle, request: BackendRequest, cache: ChoiceCache | None) -> BackendChoice:
    calibration = None if bundle.calibration is None else _as_seen(bundle, bundle.calibration)
    allowed: tuple[CpuPrecision, ...] = ("float32", "bf16") if calibration is None else ("float32", "bf16", "int8")
    inputs = torch.cat([_as_seen(bundle, some) for some in _pictures(bundle)])
    try:
        return choose(
            bundle.network, inputs, request, fits=_same_logits, allowed=allowed, calibration=calibration, cache=cache
        )
    except ConfigError as error:
        raise BundleError(f"{bundle.model_id}: {error}") from error


def _pictures(bundle: Bundle) -> list[Tensor]:
    """Return pictures for a comparison of outputs: some overlays or smooth pictures, and some calibration pictures.

    Calibration pictures alone would not reveal inputs that the calibration does not cover.
    """
    wanted = bundle.settings.input
    coarse = torch.rand(_TRIED, wanted.channels, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (wanted.height, wanted.width), mode="bicubic", align_corners=False)
    others = bundle.overlays if bundle.overlays is not None else smooth.clamp(0, 1)
    sets = [each for each in (others, bundle.calibration) if each is not None]
    # Few large ones, because each takes long.
    most = max(8, min(_TRIED, _TRIED_PIXELS // (wanted.height * wanted.width)))
    return [each[: most // len(sets)] for each in sets]


@torch.inference_mode()
def _as_seen(bundle: Bundle, pictures: Tensor) -> Tensor:
    """Apply the bundle's stages to pictures in [0, 1] with a fixed draw, as the network gets them."""
    seeds = bundle.seeds(len(pictures), torch.Generator().manual_seed(0))
    return bundle.normalised(bundle.preprocess(pictures, seeds))


def _same_logits(exact: Tensor, got: Tensor, precision: CpuPrecision) -> str:
    if got.shape != exact.shape or not bool(got.isfinite().all()):
        return f"expected finite outputs {tuple(exact.shape)}, got {tuple(got.shape)}"
    same = (got.argmax(1) == exact.argmax(1)).float()
    if precision == "int8":
        share = float(same.mean())
        error = float((got - exact).square().mean().sqrt() / (exact - exact.mean(0)).square().mean().sqrt())
        if share < AGREEMENT or error > ERROR:
            # This is no slowness or lack of this machine, but a fault of the bundle on any machine.
            raise BundleError(
                f"the calibration: expected int8 to keep {AGREEMENT:.0%} of the classes with an error of at most "
                f"{ERROR} of the outputs' spread, got {share:.0%} and {error:.2f}. Add pictures of the fleet to "
                "it."
            )
        return ""
    moved, span = float((got - exact).abs().amax()), float(exact.amax() - exact.amin())
    if moved > TOLERANCE[precision] * max(span, 1e-6):
        return f"an output moves by {moved:.2g} of a range of {span:.2g}"
    return "" if precision == "float32" or bool(same.all()) else "a class changes"


# The restorer


@dataclass(frozen=True)
class _BackendRestorer:
    """The restorer with its weights run by a backend."""

    change: Network
    kept_gain: float
    dtype: torch.dtype = torch.float32

    def __call__(self, filled: Tensor, kept: Tensor) -> Tensor:
        return restored(filled, kept, self.change, self.kept_gain)


class Change(nn.Module):
    """The part of a restorer that has its weights, as a network of one input."""

    def __init__(self, restorer: Restorer | Filler) -> None:
        super().__init__()
        self.restorer = restorer

    def forward(self, x: Tensor) -> Tensor:
        """See `Restorer.change`."""
        return self.restorer.change(x)


class _LazyNetwork:
    """A network that is created on its first call, because the frames of most cameras need only one restorer."""

    def __init__(self, make: Callable[[], Network]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: Network | None = None

    def __call__(self, x: Tensor) -> Tensor:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made(x)


@lru_cache(maxsize=4)
def restorers(
    request: BackendRequest, threads: int, cache: ChoiceCache | None = None
) -> tuple[BackendChoice, Restorers]:
    """Return the backend of the restorer for small frames, and both restorers.

    The restorer for large frames is another network with its own choice. The first layer of the small one sees the
    differences between neighbouring pixels and stays float32. In 8 bits it alone loses most of the total error, and it
    is a tenth of the work. All models of a process share the result, with `threads` of its own.
    """
    small, large = shipped_restorer(torch.device("cpu")), shipped_filler(torch.device("cpu"))
    calibration = restorer_inputs(False)
    choice = choose(
        Change(small).eval(),
        calibration[:_TRIED],
        request,
        fits=_same_pixels,
        allowed=("float32", "bf16", "int8"),
        calibration=calibration,
        free_sides=True,
        cache=cache,
    )
    if choice.backend == "torch":
        return choice, Restorers(small, large)
    fast = _BackendRestorer(choice.network, small.kept_gain)

    def make() -> Network:
        again = BackendRequest("openvino", request.precision if request.precision in ("auto", "int8") else "float32")
        inputs = restorer_inputs(True)
        change = Change(large).eval()
        return choose(
            change,
            inputs[:_TRIED],
            again,
            fits=_same_pixels,
            allowed=("float32", "int8"),
            calibration=inputs,
            free_sides=True,
            exact_first=True,
            cache=cache,
        ).network

    return choice, Restorers(fast, _BackendRestorer(_LazyNetwork(make), large.kept_gain))


def _same_pixels(exact: Tensor, got: Tensor, precision: CpuPrecision) -> str:
    moved = float((got - exact).square().mean().sqrt()) if got.shape == exact.shape else float("nan")
    most = RESTORED[precision]
    return "" if moved <= most else f"restored pixels move by {moved:.2g}, expected at most {most:g}"


@torch.inference_mode()
def restorer_inputs(large: bool) -> Tensor:
    """Return the calibration pictures that ship in the restorer's format: (N, 4, H, W), with pixels missing."""
    with as_file(files("bundles") / "restorer" / "calibration.npz") as path, np.load(path) as kept:
        pictures = torch.from_numpy(kept["large" if large else "small"]).permute(0, 3, 1, 2).float() / 255
    generator = torch.Generator().manual_seed(0)
    ratio = torch.tensor(DROPPED).repeat(-(-len(pictures) // len(DROPPED)))[: len(pictures), None, None, None]
    mask = torch.rand(len(pictures), 1, *pictures.shape[2:], generator=generator) >= ratio
    return seen(reconstruct_plate(pictures, mask), mask)
