"""Normalisations of pictures in [0, 1] before a network, (x − mean) / std, by their common names."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from schemas.errors import ConfigError

_GREY: Final = (0.299, 0.587, 0.114)


class Normalisation(NamedTuple):
    """One value for each channel, of pictures on the scale [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, channels: int) -> Normalisation:
        """Return the same for this many channels: for grey pictures, the luma of the colours' means and deviations."""
        if channels == len(self.mean):
            return self
        if channels == 1:
            return Normalisation(*((_luma(each),) for each in self))
        return Normalisation(self.mean * channels, self.std * channels)


def _luma(values: tuple[float, ...]) -> float:
    """Return the luma of one value a channel, exactly if all are equal."""
    return values[0] if len(set(values)) == 1 else round(sum(map(float.__mul__, _GREY, values)), 4)


PRESETS: Final[dict[str, Normalisation]] = {
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "bytes": Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
}
"""`half` maps to [−1, 1], `unit` leaves [0, 1] as it is, `bytes` maps to [0, 255]."""


def normalisation(preset: str | None, mean: str | None, std: str | None, known: Normalisation | None) -> Normalisation:
    """Return the normalisation of the options, else the `known` one of the weights. Raises ConfigError."""
    if preset is not None and (mean is not None or std is not None):
        raise ConfigError("normalisation: expected --preset, or --mean and --std, got both. Remove one.")
    if preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}. Correct it.")
        return PRESETS[preset]
    if mean is not None and std is not None:
        given = Normalisation(_numbers("--mean", mean), _numbers("--std", std))
        if len(given.mean) != len(given.std) or min(given.std) <= 0:
            raise ConfigError("--std: expected as many numbers above 0 as in --mean, got another list. Correct it.")
        for option, values in (("--mean", given.mean), ("--std", given.std)):
            if (most := max(values)) > 1:
                raise ConfigError(
                    f"{option}: expected numbers on the scale 0 to 1, got {most:g}. Divide --mean and --std by 255."
                )
        return given
    if mean is not None or std is not None:
        raise ConfigError("normalisation: expected --mean and --std together, got one of them. Give both.")
    if known is None:
        raise ConfigError(
            f"normalisation is missing: expected --preset ({', '.join(PRESETS)}), or --mean and --std. Give "
            "the one of the network's training."
        )
    return known


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise ConfigError(
            f"{option}: expected one number, or three with commas between them, got {text!r}. Correct it."
        )
    return values
