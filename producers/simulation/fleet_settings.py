"""Settings of a simulated fleet."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from schemas.settings import RoleSettings, SamplingSettings


class FleetSettings(RoleSettings, SamplingSettings):
    """Settings of `pointillist fleet`."""

    scenario: Path
    """YAML scenario: cameras, sources, faults."""
    mqtt: str = ""
    """MQTT broker, host:port or mqtts://host:port; empty takes it from the state folder. Each camera connects with the
    certificate of its enrolment."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds for which the cameras run, counted from their first start; none runs until the sources end."""
    drain_s: float = Field(default=30.0, ge=0)
    """Seconds to wait, after the end, for confirmations."""
    resume: bool = False
    """For a supervisor that restarts the fleet: after a completed run only drain its spools, and retry sources that do
    not answer. Without it, begin another run, and end when no source opens."""
