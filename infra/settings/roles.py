"""The settings model of each role, by name; a model is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from pydantic import BaseModel

from schemas.errors import ConfigError

MODELS: Final = {
    "up": "infra.up.settings:UpSettings",
    "fleet": "producers.simulation.fleet_settings:FleetSettings",
    "bridge": "producers.bridge.settings:BridgeSettings",
    "processor": "processors.settings:ProcessorSettings",
    "recorder": "consumers.settings:RecorderSettings",
    "console": "consumers.console.settings:ConsoleSettings",
    "camera-attach": "producers.camera.role_settings:CameraAttachSettings",
    "camera-run": "producers.camera.role_settings:CameraRunSettings",
    "camera-test": "producers.camera.role_settings:CameraTestSettings",
    "monitor": "infra.monitor.settings:MonitorSettings",
    "homeassistant": "consumers.homeassistant.settings:AnnouncerSettings",
}
"""Each model as `module:class`."""

FILES: Final = {
    "cameras": "producers.fleet.camera_file:CameraFile",
    "scenario": "producers.simulation.scenario:Scenario",
    "model": "processors.bundle:BundleSettings",
}
"""The model of each file that does not hold settings of a role: `cameras.yaml`, a scenario and `model.toml`."""


def model_of(role: str) -> type[BaseModel]:
    """Return the settings model of a role; ConfigError for an unknown one."""
    if role not in MODELS:
        raise ConfigError(f"role: expected one of {', '.join(MODELS)}, got {role!r}. Correct the name.")
    module, _, name = MODELS[role].partition(":")
    found: type[BaseModel] = getattr(import_module(module), name)
    return found


def prefix_of(role: str) -> str:
    """Return the prefix of a role's environment variables, such as `POINTILLIST_CAMERA_RUN__` for `camera-run`."""
    return f"POINTILLIST_{role.upper().replace('-', '_')}__"
