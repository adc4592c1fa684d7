"""The references of the two files that name cameras: scenarios and `cameras.yaml`."""

from __future__ import annotations

from typing import Final, get_args

from infra.reference.keys import Places, keys
from infra.reference.markdown import code, page, table
from producers.camera.camera_settings import CameraGroup, CameraOptions
from producers.fleet.camera_file import CameraFile, RealGroup
from producers.gate.motion import MotionSettings
from producers.gate.schedule import Schedule
from producers.publisher import WindowSettings
from producers.simulation.scenario import Fault, Scenario
from producers.sources.login import LoginPlace
from producers.sources.settings import OPTIONAL_KEYS, REQUIRED_KEYS, Kind, SourceSettings
from producers.spool import SpoolLimits
from producers.video.video_settings import VideoSettings

_PARTS: Final = (
    ("`login`", LoginPlace),
    ("`schedule`", Schedule),
    ("`motion`", MotionSettings),
    ("`spool`", SpoolLimits),
    ("`window`", WindowSettings),
    ("`video`", VideoSettings),
)
_PLACES: Final[Places] = {
    SourceSettings: "[source](#source)",
    **{model: f"[{title[1:-1]}](#{title[1:-1]})" for title, model in _PARTS},
}
_SCENARIO: Final = """\
YAML for `pointillist up --scenario FILE` and `pointillist fleet --scenario FILE`; [scenarios](../scenario.md) has an
example. An unknown key, a wrong type or a value out of its range ends the command with one line that names the key, and
exit status 2.
"""
_CAMERAS: Final = """\
YAML for `pointillist camera run cameras.yaml`; [real cameras](../cameras.md) has an example, and the effects of a
change. Relative paths start at the folder of the file. An invalid file ends the command with one line that names the
key, and exit status 2.
"""


def scenario() -> str:
    """Return the page on scenarios."""
    cameras = "keys of [a camera](#cameras)"
    return page(
        "The scenario file",
        _SCENARIO,
        keys(
            "Top of the file",
            Scenario,
            {CameraOptions: cameras, CameraGroup: "[cameras](#cameras)", Fault: "[faults](#faults)"},
        ),
        keys("`cameras`", CameraGroup, _PLACES),
        *_parts(get_args(Kind)),
        keys("`faults`", Fault),
    )


def cameras_file() -> str:
    """Return the page on `cameras.yaml`."""
    return page(
        "The file of cameras",
        _CAMERAS,
        keys("Top of the file", CameraFile, {RealGroup: "[cameras](#cameras)"}),
        keys("`cameras`", RealGroup, _PLACES),
        *_parts(("url", "video")),
    )


def _parts(kinds: tuple[str, ...]) -> list[str]:
    """Yield the nested keys of a camera; of sources, the keys of these kinds."""
    known = {key for kind in kinds for key in (*REQUIRED_KEYS[kind], *OPTIONAL_KEYS[kind], "kind")}
    rows = [(code(kind), _names(REQUIRED_KEYS[kind]), _names(OPTIONAL_KEYS[kind])) for kind in kinds]
    return [
        keys("`source`", SourceSettings, _PLACES, left_out=SourceSettings.model_fields.keys() - known),
        table(("kind", "required", "optional"), rows),
        *(keys(title, model) for title, model in _PARTS),
    ]


def _names(keys: set[str]) -> str:
    """Return the kinds in the order of the table above."""
    return ", ".join(code(name) for name in SourceSettings.model_fields if name in keys)
