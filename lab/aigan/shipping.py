"""A shipped generator: an ONNX file and its settings. An attack with it needs ONNX Runtime and no torch.

NAME/generator.onnx   pictures float32 (B, C, h, w) in [0, 1], targets int64 (B,) → direction (B, C, h, w) in [−1, 1]
NAME/generator.toml   its pictures, its target network and its bound
NAME/training.md      the command that trains it, and its output
"""

from __future__ import annotations

import hashlib
import tomllib
import warnings
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from lab.aigan.generator import Generator
from lab.training.bundle import to_toml
from schemas.errors import ConfigError, first_line
from schemas.runtime.atomic_file import replacing

Frames = NDArray[np.float32]

MODEL: Final = "generator.onnx"
SETTINGS: Final = "generator.toml"
MAX_BYTES: Final = 5 * 2**20
WITHIN: Final = 1 - 2.0**-18
"""Share of ε that is used. The small margin keeps rounded float32 sums within the bound."""


@dataclass(frozen=True)
class GeneratorSettings:
    """The contents of `generator.toml`."""

    name: str
    bundle: str
    """The network that it was trained against: name@version+digest of the weights."""
    knowledge: str
    """`white-box`, or `black-box`: only that network's answers were known."""
    classes: list[str]
    channels: int
    height: int
    width: int
    eps: float
    """The L∞ bound of its training, on frames in [0, 1]."""
    command: str


class Attacker:
    """A shipped generator in ONNX Runtime, with torch's number of threads."""

    def __init__(self, folder: Path) -> None:
        self.settings = read_generator_settings(folder)
        self.digest = ""
        """Digest of the model: 12 hexadecimal digits."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.digest = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()[:12]
            self._session = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise ConfigError(f"{folder / MODEL}: expected an ONNX generator, got: {first_line(error)}") from None

    def direction(self, pictures: Frames, targets: NDArray[np.int64]) -> Frames:
        """Return the direction in which pictures (B, C, h, w) in [0, 1] move towards the classes `targets` (B,)."""
        (found,) = self._session.run(["direction"], {"pictures": pictures, "targets": targets})
        direction: Frames = found
        return direction

    def __call__(self, pictures: Frames, targets: NDArray[np.int64], eps: float | None = None) -> Frames:
        """Return the attacked pictures in [0, 1], within L∞ `eps` of `pictures`, by default the generator's bound."""
        reach = np.float32((self.settings.eps if eps is None else eps) * WITHIN)
        return np.clip(pictures + reach * self.direction(pictures, targets), 0, 1)


def shipped_generator(name: str) -> Path:
    """Return the folder of a shipped generator. Those of the fleet are with the bundles, the others with the lab."""
    places = (Path(str(files("bundles"))) / "generators", Path(str(files("lab"))) / "aigan" / "models")
    for place in places:
        if (place / name / SETTINGS).is_file():
            return place / name
    have = ", ".join(sorted(file.parent.name for place in places for file in place.glob(f"*/{SETTINGS}"))) or "none"
    raise ConfigError(f"generator: expected one of {have}, got {name!r}")


def read_generator_settings(folder: Path) -> GeneratorSettings:
    """Return the `generator.toml` of `folder`. Raises ConfigError in one line if it is missing or wrong."""
    file = folder / SETTINGS
    try:
        return GeneratorSettings(**tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{file}: expected a generator's settings, cannot read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise ConfigError(f"{file}: expected a generator's settings, got: {first_line(error)}") from None


def ship(generator: Generator, settings: GeneratorSettings, folder: Path) -> None:
    """Write model and settings. Raises ConfigError for a model of 5 MiB or more."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / MODEL) as fresh:
        export(generator, fresh)
        if fresh.stat().st_size >= MAX_BYTES:
            raise ConfigError(f"{folder / MODEL}: expected fewer than {MAX_BYTES} bytes, got {fresh.stat().st_size}")
    with replacing(folder / SETTINGS) as fresh:
        fresh.write_text(to_toml(asdict(settings)), encoding="utf-8")


def export(generator: Generator, file: Path) -> None:
    """Write `generator` in evaluation mode as ONNX, for any batch size."""
    shape = generator.shape
    pictures = torch.rand(2, shape.channels, shape.height, shape.width)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        # The exporter warns about its own deprecations.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            generator.eval(),
            (pictures, torch.zeros(2, dtype=torch.int64)),
            input_names=["pictures", "targets"],
            output_names=["direction"],
            dynamic_shapes={"pictures": {0: batch}, "targets": {0: batch}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # Remove each node's source file and line, which contain the exporting user's folders.
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output, graph, model):
        part.ClearField("metadata_props")
    file.write_bytes(model.SerializeToString())
