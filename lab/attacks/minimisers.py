"""Many independent L-BFGS-B minimisations whose function is evaluated for all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # the package ships no annotations
from scipy.optimize import Bounds, minimize

Floats = npt.NDArray[np.float64]
Evaluate = Callable[[list[int], Floats], tuple[Floats, Floats]]
"""A function from indices of minimisations (k,) and their points (k, n) to their values (k,) and gradients (k, n)."""


def minimise_together(
    evaluate: Evaluate, starts: Floats, *, bounds: tuple[float, float], unit: float, iterations: int
) -> Floats:
    """Return the minima (k, n) of k minimisations from `starts` (k, n), each variable within `bounds`.

    Each is scipy's L-BFGS-B with separate line searches, at most `iterations` long. `unit` is the length of its first
    trial step. Scipy requests values by a call. So each minimisation is a coroutine with a separate stack that waits in
    the call until all have made one. (Threads would do the same, at two switches of the interpreter's lock per call.)
    """
    main = getcurrent()
    sides = Bounds(bounds[0] / unit, bounds[1] / unit)

    def function(point: Floats) -> tuple[float, Floats]:
        value, gradient = main.switch(point * unit)
        return value, gradient * unit

    def run(start: Floats) -> None:
        options = {"maxiter": iterations, "ftol": 1e-5, "gtol": 0.0}
        found = minimize(function, start / unit, jac=True, method="L-BFGS-B", bounds=sides, options=options)
        start[:] = (found.x * unit).clip(*bounds)

    ends = starts.copy()
    runs = [greenlet(run) for _ in ends]
    # The end of a run switches back to the caller that last resumed it, with None instead of a point.
    asked = {row: runs[row].switch(end) for row, end in enumerate(ends)}
    while waiting := {row: point for row, point in asked.items() if point is not None}:
        values, gradients = evaluate(list(waiting), np.stack(list(waiting.values())))
        answers = zip(waiting, values, gradients, strict=True)
        asked = {row: runs[row].switch((float(value), gradient)) for row, value, gradient in answers}
    return ends
