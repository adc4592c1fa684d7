"""A generator of attacks, run by ONNX Runtime on one thread: pictures and target classes to directions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from producers.simulation.generator_toml import NETWORK, GeneratorSettings, read_generator
from schemas.errors import ConfigError, first_line

Floats = NDArray[np.float32]

_INPUTS: Final = {"pictures": "tensor(float)", "targets": "tensor(int64)"}
_OUTPUT: Final = "direction"
_SERIOUS: Final = 3
"""ONNX Runtime's severity level of errors; lower levels are not logged."""


class _Session(Protocol):
    def run(self, outputs: list[str], inputs: Mapping[str, NDArray[np.generic]]) -> list[Floats]: ...


class Generator:
    """The network in a generator's folder. `direction` may be called by any thread.

    Raises `ConfigError` without ONNX Runtime, for a file that it cannot load, and for a network with other inputs or
    outputs than a generator's.
    """

    def __init__(self, folder: Path) -> None:
        self.settings: GeneratorSettings = read_generator(folder)
        self._session = _open_session(folder / NETWORK)
        two = np.zeros((2, self.settings.channels, self.settings.height, self.settings.width), np.float32)
        try:
            self._direction(two, np.zeros(2, np.int64))
        except ConfigError as error:
            raise ConfigError(f"{folder / NETWORK}: {error}") from None

    def direction(self, pictures: Floats, targets: NDArray[np.int64]) -> Floats:
        """Return the directions for `pictures` (B, C, h, w) in [0, 1] and target classes `targets` (B,): same shape, in
        [−1, 1].

        h × w and C are those of the settings. Values beyond [−1, 1] are clipped, and NaN counts as 0.
        """
        return np.nan_to_num(self._direction(pictures, targets)).clip(-1, 1)

    def _direction(self, pictures: Floats, targets: NDArray[np.int64]) -> Floats:
        try:
            (direction,) = self._session.run([_OUTPUT], {"pictures": pictures, "targets": targets})
        except Exception as error:  # ONNX Runtime's own kinds, which are not imported here
            raise ConfigError(
                f"the generator: expected a network that runs, got {first_line(error)}. Export it again."
            ) from error
        if direction.shape != pictures.shape or direction.dtype != np.float32:
            raise ConfigError(
                f"the generator: expected {_OUTPUT} float32 {pictures.shape}, got {direction.dtype} "
                f"{direction.shape}. Train it for this size."
            )
        return direction


def _open_session(file: Path) -> _Session:
    try:
        # Imported on demand: other cameras do not need its memory.
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"onnxruntime is missing: the fault attack needs it ({first_line(error)}). Install pointillist[redteam]."
        ) from None
    if not file.is_file():
        raise ConfigError(f"{file} is missing: expected the network of a generator. Correct the path.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SERIOUS
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever it finds wrong with the file
        raise ConfigError(f"{file}: expected an ONNX network, got {first_line(error)}. Export it again.") from None
    inputs = {each.name: each.type for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]
    if inputs != _INPUTS or _OUTPUT not in outputs:
        raise ConfigError(
            f"{file}: expected the inputs {_INPUTS} and the output {_OUTPUT}, got {inputs} and "
            f"{', '.join(outputs)}. Export the network again."
        )
    opened: _Session = session
    return opened
