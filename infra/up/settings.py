"""What `pointillist up` is asked for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from consumers.console.settings import Proxy
from producers.scenario import CameraOptions, read_scenario
from producers.sources.scene import SIZE as SCENE_SIZE
from producers.sources.settings import SourceSettings
from schemas.errors import BundleError, ConfigError, SourceError
from schemas.identity import DEFAULT_SITE
from schemas.limits import CAMERAS_AT_HAND, USUAL_FRAME_PIXELS

PRERENDERED = 256
"""Scenes rendered beforehand for each camera that runs as fast as it can: then the renderer is not what is measured."""


QUOTA_OVER_RATE = 8
"""So many times as often as the fastest camera captures may each of them send: enough to catch up after an outage."""
LEAST_QUOTA = 100.0
LEAST_QUOTA_BYTES = 2.0**20
MESSAGE_OVERHEAD = 512
"""Bytes of a frame message besides its pixels, at most."""


class UpSettings(BaseModel):
    """The options of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cameras: int = Field(default=8, ge=1, le=CAMERAS_AT_HAND)
    fps: float = Field(default=2.0, ge=0)
    seconds: float | None = Field(default=None, gt=0)
    drop: float = Field(default=0.25, ge=0, le=0.875)
    source: str = "scene"
    scenario: Path | None = None
    bundle: Path | None = None
    strip_rate: float = Field(default=0.05, ge=0, le=1)
    profile: Literal["raw", "lossless"] = "raw"
    mode: Literal["default", "paper", "plate", "none"] = "default"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["auto", "float32", "tf32", "bf16", "int8"] = "auto"
    processors: int = Field(default=1, ge=1, le=16)
    bridges: int = Field(default=1, ge=1, le=16)
    kafka_nodes: Literal[1, 3] = 1
    """Three hold three copies of each record, of which two must have it before it is acknowledged."""
    state: Path = Path(".pointillist")
    report: Path | None = None
    drain_s: float = Field(default=60.0, gt=0)
    batch_frames: int = Field(default=64, ge=1, le=1024)
    max_frame_pixels: int = Field(default=USUAL_FRAME_PIXELS, ge=64)
    spool_bytes: int = Field(default=256 * 2**20, ge=2**20)
    prometheus: bool = True
    receivers: Path | None = None
    """Whom Alertmanager tells: a file of its receivers, and of routes to them."""
    http: str | None = None
    listen: str | None = None
    """Where mosquitto listens for cameras on other machines, besides loopback."""
    http_tls: Path | None = None
    """A folder with the console's `tls.crt` and `tls.key`; None takes the fleet's own where other machines reach it."""
    http_plain: bool = False
    """Passwords by plain HTTP where other machines reach the console."""
    behind_proxy: Proxy | None = None
    """The console is behind a reverse proxy at this address, which speaks TLS."""
    plain: bool = False
    """Without TLS, certificates and rights: to compare."""
    served_as: tuple[str, ...] = ()


def usual_cameras(source: str) -> int:
    """The number of cameras without `--cameras`: 8 that share scenes or a data set, else one for the one source."""
    return 8 if source in ("scene", "cifar10") or source.endswith(".npz") else 1


def is_real(source: str) -> bool:
    """Whether a source is a camera or stream of its own, by a URL or a device."""
    return "://" in source or source.startswith("/dev/")


def source_entry(source: str, cameras: int, fps: float, data: Path | None) -> dict[str, Any]:
    """The scenario's `source` for `scene`, `cifar10`, a URL, a device, a video file or an npz file.

    Raises SourceError when a file is missing.
    """
    if source == "scene":
        return {"kind": "scene", "prerendered": PRERENDERED if fps == 0 else 0}
    if source == "cifar10":
        if data is None:
            raise SourceError("the source cifar10 is expected in the folder that POINTILLIST_DATA names; it is not set")
        return _dataset(data / "cifar10.npz", cameras)
    if is_real(source):
        if cameras > 1:
            raise ConfigError(
                f"--cameras: expected 1 with a URL or device, for each would fetch the stream anew, got {cameras}; "
                "several cameras are named in a --scenario"
            )
        return {"kind": "url", "address": source}
    file = Path(source).expanduser()
    if not file.is_file():
        raise SourceError(f"expected scene, cifar10, a URL or an existing file as source, got {source!r}")
    if file.suffix == ".npz":
        return _dataset(file, cameras)
    return {"kind": "video", "file": str(file.resolve())}


def _dataset(file: Path, cameras: int) -> dict[str, Any]:
    if not file.is_file():
        raise SourceError(f"expected the data set {file}, there is no such file")
    return {"kind": "dataset", "file": str(file.resolve()), "stride": cameras}


def scenario_document(settings: UpSettings, data: Path | None) -> dict[str, Any]:
    """The scenario of a run: the given file's, or one group of equal cameras."""
    if settings.scenario is not None:
        file = scenario_file(settings.scenario)
        document = read_scenario(file)
        if not isinstance(document, dict):
            raise ConfigError(f"{file}: expected a mapping with `site` and `cameras`")
        return document
    return {
        "site": DEFAULT_SITE,
        "cameras": [
            {
                "name": "cam-{index}",
                "count": settings.cameras,
                "source": source_entry(settings.source, settings.cameras, settings.fps, data),
                "fps": settings.fps,
                "drop_ratio": settings.drop,
                "probe_share": settings.strip_rate,
                "profile": settings.profile,
                "spool": {"max_bytes": settings.spool_bytes},
            }
        ],
    }


def camera_messages(fps: Iterable[float]) -> float | None:
    """Messages a second that the bridges take of each camera, by the rates of all; None, which leaves that to the
    bridges, when one runs as fast as it can."""
    rates = list(fps)
    return max(LEAST_QUOTA, QUOTA_OVER_RATE * max(rates)) if all(rates) else None


def camera_bytes(cameras: Iterable[CameraOptions], max_frame_pixels: int) -> tuple[float, int] | None:
    """Bytes a second that the bridges take of each camera, and at once beyond that, by the largest and fastest.

    None, which leaves that to the bridges, when one runs as fast as it can.
    """
    rate = window = 0.0
    for camera in cameras:
        if not camera.fps:
            return None
        frame = frame_bytes(camera.source, max_frame_pixels)
        rate = max(rate, QUOTA_OVER_RATE * frame * camera.fps)
        # Twice what it has unconfirmed: after a break it sends that again.
        window = max(window, 2 * min(camera.window.frames * frame, camera.window.bytes) + frame)
    return max(LEAST_QUOTA_BYTES, rate), round(max(LEAST_QUOTA_BYTES, window))


def frame_bytes(source: SourceSettings, max_frame_pixels: int) -> int:
    """The size of the largest frame message of a source, raw; as large as processors take where it does not say."""
    pixels = max_frame_pixels
    if source.size or source.region or source.kind == "scene":
        width, height = source.size or (source.region[2:] if source.region else SCENE_SIZE)
        pixels = width * height
    return pixels * (source.channels or 3) + MESSAGE_OVERHEAD


def scenario_file(named: Path) -> Path:
    """A scenario's file: the given one, or the shipped one of that name. ConfigError names those that ship."""
    if named.exists():
        return named
    shipped = {file.stem: file for file in sorted((Path(str(files("infra"))) / "scenarios").glob("*.yaml"))}
    if str(named) not in shipped:
        raise ConfigError(
            f"--scenario: expected a file or one of {', '.join(shipped)}, got {named}. There is no such file."
        )
    return shipped[str(named)]


def with_bundle_of(document: dict[str, Any], settings: UpSettings) -> UpSettings:
    """The settings with the bundle that a scenario brings, where none was asked for."""
    named = document.get("bundle")
    if settings.bundle is not None or not isinstance(named, str):
        return settings
    return settings.model_copy(update={"bundle": Path(named)})


def checks_for_triggers(folder: Path) -> bool:
    """Whether a bundle's `model.toml` has the table `strip`; true when it cannot be read: its loader says so."""
    try:
        return "strip" in tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True


def bundle_folder(settings: UpSettings) -> Path:
    """The bundle of a run: the given one, else the shipped one that fits the source."""
    shipped = Path(str(files("bundles")))
    if settings.bundle is None:
        return shipped / ("scene" if settings.source == "scene" else "cifar10")
    if (settings.bundle / "model.toml").is_file():
        return settings.bundle.resolve()
    names = sorted(file.parent.name for file in shipped.glob("*/model.toml"))
    if str(settings.bundle) in names:
        return shipped / settings.bundle
    raise BundleError(
        f"--bundle: expected a folder with model.toml or one of {', '.join(names)}, got {settings.bundle}. There is no "
        "such bundle."
    )
