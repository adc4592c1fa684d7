"""Which backend runs a network, in which precision: measured where it is to run, and checked against torch first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import structlog
import torch
from torch import Tensor

from processors.bundle.formats import Network
from processors.device.backends.contract import COARSER, Backend, BackendName, CpuPrecision, Unsuited, runtime_of
from processors.device.backends.openvino_cpu import OpenVino
from schemas.errors import ConfigError, first_line

BACKENDS: Final[tuple[Backend, ...]] = (OpenVino(),)
"""What may take the place of a network's own runtime."""

ROUNDS: Final = 5
"""Turns that each candidate has."""
HOPELESS: Final = 1.5
"""What takes so many times as long as the fastest after two turns has no more."""
COARSER_PAYS: Final = 1.25
"""How many times as fast as float32 a coarser precision must be to be taken unasked."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; `auto` is what turns out to be the fastest of what keeps to its tolerance."""

    backend: BackendName = "auto"
    precision: Literal["auto", CpuPrecision] = "auto"


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a network, by which backend and in which precision."""

    network: Network
    backend: str
    precision: CpuPrecision
    speedup: float = 1.0
    """How many times as fast as its own runtime it was in the trial; 1 where nothing was tried."""

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


class RunsOn(NamedTuple):
    """What runs one of a model's networks, `classifier` or `restorer`, as logs and metrics say it."""

    network: str
    backend: str
    precision: str


class _Lasting:
    """A network that goes back to its own runtime, for good, when the backend fails on a batch."""

    def __init__(self, network: Network, own: Network) -> None:
        self._network = network
        self._own = own

    def __call__(self, x: Tensor) -> Tensor:
        if self._network is not self._own:
            try:
                return self._network(x)
            except Exception as error:  # whatever the backend raises
                log.error("the backend failed, the network's own runtime goes on", error=first_line(error))
                self._network = self._own
        return self._own(x)


Fits = Callable[[Tensor, Tensor, CpuPrecision], str]
"""From the outputs of a network's own runtime, those of another one, and its precision, to what is wrong with them in
words; empty where they keep to the tolerance of that precision."""


def check_wish(wish: Wish) -> None:
    """Raise ConfigError when this machine lacks what is asked for, or no backend computes so."""
    backends = {backend.name: backend for backend in BACKENDS}
    if wish.backend in backends and (lacks := backends[wish.backend].lacks()):
        raise ConfigError(f"backend {wish.backend}: expected {lacks}, which is not here; auto or torch would run")
    if wish.precision not in COARSER:
        return
    if wish.backend == "torch":
        raise ConfigError(f"precision {wish.precision}: expected another backend than torch, which computes in float32")
    some = [backend for backend in BACKENDS if wish.backend in ("auto", backend.name) and not backend.lacks()]
    if not any(wish.precision in backend.precisions() for backend in some):
        have = ", ".join(sorted({p for backend in some for p in backend.precisions()})) or "float32"
        raise ConfigError(f"precision {wish.precision}: expected a processor and a backend with it, here are: {have}")


def choose(
    network: Network,
    inputs: Tensor,
    wish: Wish,
    *,
    fits: Fits,
    allowed: Sequence[CpuPrecision] = ("float32", "bf16"),
    calibration: Tensor | None = None,
    free_sides: bool = False,
    exact_first: bool = False,
) -> Choice:
    """The fastest way to run `network` on `inputs` (N, C, H, W), of those that fit there; its own if none does.

    Precisions that are not `allowed` are never taken. Other arguments are those of `Backend.take` and `Taken.at`.
    Raises ConfigError for a wish that this machine or this network cannot fulfil.
    """
    check_wish(wish)
    own = Choice(network, runtime_of(network), "float32")
    found: list[Choice] = []
    refusals: list[str] = []
    if wish.backend in ("auto", "torch") and wish.precision in ("auto", "float32"):
        found.append(own)
    for backend in BACKENDS:
        if wish.backend in ("auto", backend.name) and not backend.lacks():
            wanted = [each for each in backend.precisions() if wish.precision in ("auto", each)]
            with torch.inference_mode():
                found += _of_backend(
                    backend, own, inputs, [each for each in wanted if each in allowed], fits, calibration, free_sides,
                    exact_first, refusals,
                )  # fmt: skip
            refusals += [f"{each} is not allowed for it" for each in wanted if each == wish.precision not in allowed]
    if not found:
        asked = " ".join(each for each in (wish.backend, wish.precision) if each != "auto")
        raise ConfigError(f"{asked}: this network cannot be run so: {'; '.join(refusals) or 'no backend is here'}")
    return found[0] if len(found) == 1 else _fastest(found, inputs)


def _of_backend(
    backend: Backend,
    own: Choice,
    inputs: Tensor,
    precisions: Sequence[CpuPrecision],
    fits: Fits,
    calibration: Tensor | None,
    free_sides: bool,
    exact_first: bool,
    refusals: list[str],
) -> list[Choice]:
    """What keeps to its tolerance; what does not is added to `refusals`."""
    found = []
    try:
        taken = backend.take(own.network, inputs, free_sides)
        exact = own.network(inputs)
        for precision in precisions:
            network = taken.at(precision, calibration, exact_first)
            wrong = fits(exact, network(inputs), precision)
            if wrong:
                refusals.append(f"{backend.name} {precision}: {wrong}")
            else:
                found.append(Choice(_Lasting(network, own.network), backend.name, precision))
    except Unsuited as error:
        refusals.append(str(error))
    for refusal in refusals:
        log.info("backend not taken", why=refusal)
    return found


def _fastest(found: Sequence[Choice], inputs: Tensor) -> Choice:
    """In turns, by the least time of each: what else runs on the machine makes single turns longer, none shorter."""
    seconds = trial([each.network for each in found], inputs)
    timed = [
        Choice(each.network, each.backend, each.precision, seconds[0] / taken)
        for each, taken in zip(found, seconds, strict=True)
    ]
    best = max(timed, key=_speedup)
    exact = max((each for each in timed if each.precision == "float32"), key=_speedup, default=best)
    return best if best.speedup >= COARSER_PAYS * exact.speedup else exact


def _speedup(choice: Choice) -> float:
    return choice.speedup


@torch.inference_mode()
def trial(networks: Sequence[Network], inputs: Tensor, rounds: int = ROUNDS) -> list[float]:
    """CPU seconds that one call of each network takes at least, after one to warm up.

    Not those of a clock: other roles share the cores, and what they take says nothing of a network.
    """
    least = [float("inf")] * len(networks)
    for turn in range(rounds + 1):
        behind = HOPELESS * min(least) if turn > 2 else float("inf")
        for i, network in enumerate(networks):
            if least[i] > behind:
                continue
            start = time.process_time()
            network(inputs)
            if turn:
                least[i] = min(least[i], time.process_time() - start)
    return least
