"""The choice of a network's backend and precision: measured on this machine, and first checked against torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog
import torch
from torch import Tensor

from processors.bundle.formats import Network
from processors.device.backends.choice_cache import ChoiceCache, key_of
from processors.device.backends.contract import (
    COARSER,
    Backend,
    BackendName,
    CpuPrecision,
    UnsupportedNetworkError,
    runtime_of,
)
from processors.device.backends.openvino_cpu import OpenVino
from processors.device.memory import lacks_memory
from schemas.errors import ConfigError, first_line, typed_text

BACKENDS: Final[tuple[Backend, ...]] = (OpenVino(),)
"""Alternatives to a network's own runtime."""

ROUNDS: Final = 5
"""Trial rounds of each candidate."""
HOPELESS: Final = 1.5
"""Factor over the fastest time above which a candidate gets no more rounds after two."""
SHORTEST_S: Final = 1e-9
"""Least CPU seconds of a call."""
FAILURES: Final = 3
"""Failures in a row after which a backend is not tried again."""
COARSER_PAYS: Final = 1.25
"""Speedup over float32 from which a coarser precision is chosen without a request."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """The requested backend and precision; `auto` is the fastest within its tolerance."""

    backend: BackendName = "auto"
    precision: Literal["auto", CpuPrecision] = "auto"


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The chosen network function, with its backend and precision."""

    network: Network
    backend: str
    precision: CpuPrecision
    speedup: float = 1.0
    """Speedup over the network's own runtime in the trial; 1 without a trial."""
    save: Callable[[Path], None] | None = None
    """Writes the backend's model into a file while the trial runs; None for the network's own runtime."""

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


class RunsOn(NamedTuple):
    """The runtime of one of a model's networks, `classifier` or `restorer`, for logs and metrics."""

    network: str
    backend: str
    precision: str


class _FallbackNetwork:
    """A network of which a batch that the backend fails on runs on its own runtime: after `FAILURES` in a row, all do.

    It raises errors of memory of a batch of several: a smaller one may fit. Those of a single picture are no failures:
    the memory may return.
    """

    def __init__(self, network: Network, own: Network) -> None:
        self._network = network
        self._own = own
        self._failures = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self._failures < FAILURES:
            try:
                found = self._network(x)
            except Exception as error:  # a backend may raise anything
                no_memory = lacks_memory(error)
                if no_memory and len(x) > 1:
                    raise
                self._failures += not no_memory
                log.error("backend_failed", error=first_line(error), abandoned=self._failures == FAILURES)
            else:
                self._failures = 0
                return found
        return self._own(x)


Fits = Callable[[Tensor, Tensor, CpuPrecision], str]
"""A function that compares a network's own outputs with another runtime's at a precision.

It returns the fault in words, and an empty text within the tolerance of that precision.
"""


def check_request(request: BackendRequest) -> None:
    """Raise ConfigError if this machine lacks the requested backend, or no backend has the requested precision."""
    backends = {backend.name: backend for backend in BACKENDS}
    if request.backend in backends and (lacks := backends[request.backend].lacks()):
        raise ConfigError(
            f"backend {request.backend}: expected {lacks}, got none. Install it, or choose auto or torch."
        )
    if request.precision not in COARSER:
        return
    if request.backend == "torch":
        raise ConfigError(
            f"precision {request.precision}: expected another backend, got torch, which computes in float32. Choose "
            "auto."
        )
    some = [backend for backend in BACKENDS if request.backend in ("auto", backend.name) and not backend.lacks()]
    if not any(request.precision in backend.precisions() for backend in some):
        have = ", ".join(sorted({p for backend in some for p in backend.precisions()})) or "float32"
        raise ConfigError(
            f"precision {request.precision}: expected a processor and a backend with it, got {have}. Choose one of "
            "these."
        )


def choose(
    network: Network,
    inputs: Tensor,
    request: BackendRequest,
    *,
    fits: Fits,
    allowed: Sequence[CpuPrecision] = ("float32", "bf16"),
    calibration: Tensor | None = None,
    free_sides: bool = False,
    exact_first: bool = False,
    cache: ChoiceCache | None = None,
) -> BackendChoice:
    """Return the fastest way to run `network` on `inputs` (N, C, H, W) within the tolerance, or its own runtime.

    Only precisions in `allowed` are used. Other arguments are those of `Backend.convert` and `BackendNetwork.at`. A
    choice that `cache` holds is checked and not measured again. Raises ConfigError for a request that this machine or
    this network cannot fulfil.
    """
    check_request(request)
    own = BackendChoice(network, runtime_of(network), "float32")
    settings = (request, tuple(allowed), free_sides, exact_first)
    key = None if cache is None else key_of(network, (inputs, calibration), *settings)
    if cache is not None and key is not None and (known := _cached(cache, key, own, inputs, request, fits)) is not None:
        return known
    best = _measured(own, inputs, request, fits, allowed, calibration, free_sides, exact_first)
    if cache is not None and key is not None:
        cache.keep(key, best.backend, best.precision, best.speedup, best.save)
    # It would keep the other forms of the model in memory.
    return replace(best, save=None)


@torch.inference_mode()
def _cached(
    cache: ChoiceCache, key: str, own: BackendChoice, inputs: Tensor, request: BackendRequest, fits: Fits
) -> BackendChoice | None:
    """Return the choice that the cache holds if it still fits the network's own outputs."""
    found = cache.find(key)
    if found is None:
        return None
    if (found.backend, found.precision) == (own.backend, own.precision):
        return replace(own, speedup=found.speedup) if _permits_own(request) else None
    backend = next((each for each in BACKENDS if each.name == found.backend and not each.lacks()), None)
    if backend is None:
        return None
    try:
        network = backend.restore(found.model, found.precision)
        wrong = fits(own.network(inputs), network(inputs), found.precision)
    except Exception as error:  # a backend may raise anything, and a new measurement replaces the entry
        wrong = typed_text(error)
    if wrong:
        log.info("cached_choice_rejected", reason=wrong)
        return None
    return BackendChoice(_FallbackNetwork(network, own.network), found.backend, found.precision, found.speedup)


def _permits_own(request: BackendRequest) -> bool:
    """Return whether a request permits the network's own runtime."""
    return request.backend in ("auto", "torch") and request.precision in ("auto", "float32")


def _measured(
    own: BackendChoice,
    inputs: Tensor,
    request: BackendRequest,
    fits: Fits,
    allowed: Sequence[CpuPrecision],
    calibration: Tensor | None,
    free_sides: bool,
    exact_first: bool,
) -> BackendChoice:
    """Return the fastest choice by a trial."""
    found: list[BackendChoice] = []
    refusals: list[str] = []
    if _permits_own(request):
        found.append(own)
    for backend in BACKENDS:
        if request.backend in ("auto", backend.name) and not backend.lacks():
            wanted = [each for each in backend.precisions() if request.precision in ("auto", each)]
            with torch.inference_mode():
                found += _of_backend(
                    backend, own, inputs, [each for each in wanted if each in allowed], fits, calibration, free_sides,
                    exact_first, refusals,
                )  # fmt: skip
            if request.precision in wanted and request.precision not in allowed:
                refusals.append(f"{request.precision} is not allowed for it")
    if not found:
        asked = " ".join(each for each in (request.backend, request.precision) if each != "auto")
        raise ConfigError(
            f"{asked}: expected a network that can be run so, got {'; '.join(refusals) or 'no backend'}. Choose auto."
        )
    return found[0] if len(found) == 1 else _fastest(found, inputs)


def _of_backend(
    backend: Backend,
    own: BackendChoice,
    inputs: Tensor,
    precisions: Sequence[CpuPrecision],
    fits: Fits,
    calibration: Tensor | None,
    free_sides: bool,
    exact_first: bool,
    refusals: list[str],
) -> list[BackendChoice]:
    """Return the candidates within their tolerance; add the reasons for the others to `refusals`."""
    try:
        taken = backend.convert(own.network, inputs, free_sides)
    except Exception as error:  # a backend may raise anything
        _refuse(refusals, _reason(error, backend.name))
        return []
    found = []
    exact = own.network(inputs)
    for precision in precisions:
        try:
            network = taken.at(precision, calibration, exact_first)
            got = network(inputs)
        except Exception as error:  # the same, and another precision may run
            _refuse(refusals, _reason(error, f"{backend.name} {precision}"))
            continue
        if wrong := fits(exact, got, precision):
            _refuse(refusals, f"{backend.name} {precision}: {wrong}")
            continue
        save = partial(taken.save, precision)
        found.append(BackendChoice(_FallbackNetwork(network, own.network), backend.name, precision, save=save))
    return found


def _refuse(refusals: list[str], reason: str) -> None:
    refusals.append(reason)
    log.info("backend_rejected", reason=reason)


def _reason(error: Exception, name: str) -> str:
    """Return the reason of a rejection; a backend's own error is one already.

    Raises MemoryError if memory is exhausted: the next start may have enough.
    """
    if lacks_memory(error):
        raise MemoryError(f"{name}: expected enough memory for the network, got too little") from error
    return str(error) if isinstance(error, UnsupportedNetworkError) else f"{name}: {first_line(error)}"


def _fastest(found: Sequence[BackendChoice], inputs: Tensor) -> BackendChoice:
    """Return the fastest in alternating rounds, by the least time of each: other load makes rounds longer, never
    shorter.
    """
    seconds = trial([each.network for each in found], inputs)
    timed = [replace(each, speedup=seconds[0] / taken) for each, taken in zip(found, seconds, strict=True)]
    best = max(timed, key=attrgetter("speedup"))
    exact = max((each for each in timed if each.precision == "float32"), key=attrgetter("speedup"), default=best)
    return best if best.speedup >= COARSER_PAYS * exact.speedup else exact


@torch.inference_mode()
def trial(networks: Sequence[Network], inputs: Tensor, rounds: int = ROUNDS) -> list[float]:
    """Return the least CPU seconds of one call of each network, after one call to warm up.

    CPU time, not wall time: other roles share the cores, and their load is no property of a network.
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
                # Some machines count CPU time in ticks of milliseconds.
                least[i] = min(least[i], max(time.process_time() - start, SHORTEST_S))
    return least
