"""Settings of a simulated fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from producers.fleet.part import MAX_PARTS, Part
from schemas.settings import RoleSettings, SamplingSettings


class FleetSettings(RoleSettings, SamplingSettings):
    """Settings of `pointillist fleet`."""

    scenario: Path
    """YAML scenario: cameras, sources, faults."""
    mqtt: str = ""
    """MQTT broker as host:port or mqtts://host:port. Default: the broker of the state folder. Each camera connects with
    the certificate of its enrolment."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds for which the cameras run, counted from their first start. Default: until the sources end."""
    drain_s: float = Field(default=30.0, ge=0)
    """Maximum seconds to wait, after the end, until all frames are confirmed."""
    parts: int = Field(default=1, ge=1, le=MAX_PARTS)
    """Number of processes that divide the scenario's cameras among them."""
    part: int = Field(default=1, ge=1)
    """Number of this process among the `parts`, from 1."""
    resume: bool = False
    """Continue the earlier run, for a supervisor that restarts the fleet. If that run is complete, only drain its
    spools. Sources that do not answer are tried again. By default begin a new run, and end when no source opens."""

    @model_validator(mode="after")
    def _check_part(self) -> Self:
        if self.part > self.parts:
            raise ValueError(f"part: expected at most parts, {self.parts}, got {self.part}. Correct one of the two.")
        return self

    @property
    def own_part(self) -> Part:
        """The part of the scenario's cameras that this process runs."""
        return Part(self.part, self.parts)
