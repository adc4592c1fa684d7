"""Settings of `pointillist up`, and the scenario that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from bundles import GENERAL, named_bundles
from consumers.console.settings import ConsoleSettings, Proxy
from consumers.settings import HostName, RecorderSettings
from infra.local.topics import LEAST_RETENTION_S, MOST_RETENTION_S
from infra.monitor.settings import MonitorSettings
from infra.settings.roles import prefix_of
from processors.settings import ProcessorSettings
from producers.bridge.settings import BridgeSettings
from producers.camera.camera_settings import CameraOptions, CameraSettings, Profile
from producers.fleet.part import MAX_PARTS
from producers.simulation.scenario import read_scenario
from producers.sources.placing import place
from producers.sources.scene import SIZE as SCENE_SIZE
from producers.sources.settings import REAL_KINDS, SourceSettings
from schemas.errors import BundleError, ConfigError, SourceError
from schemas.identity import DEFAULT_SITE
from schemas.limits import MAX_CAMERAS, MAX_DROP_RATIO
from schemas.settings import KafkaSettings, MqttSettings, RoleSettings, SamplingSettings, TracingSettings
from schemas.toml import parse_toml

PRERENDERED = 256
"""Scenes rendered in advance for each camera that runs as fast as it can: the renderer must not limit it."""


QUOTA_OVER_RATE = 8
"""Ratio of a camera's quota to the fastest camera's rate: enough to catch up after an outage."""
LEAST_QUOTA = 100.0
LEAST_QUOTA_BYTES = 2.0**20
MESSAGE_OVERHEAD = 512
"""Bytes of a frame message besides its pixels, at most."""


SET_BY_UP: Final[dict[str, frozenset[str]]] = {
    "bridge": frozenset(
        (
            "name",
            "camera_messages_per_s",
            "camera_bytes_per_s",
            "camera_window_bytes",
            "camera_rates",
            "processors_group",
        )
    ),
    "processor": frozenset(("bundle", "backend_cache", "group", "instance", "model_cache", "trust")),
    "recorder": frozenset(("database", "group", "quarantine")),
    "console": frozenset(
        (
            "database",
            "quarantine",
            "http",
            "http_tls",
            "allowed_host",
            "behind_proxy",
            "jobs",
            "owner_file",
            "prometheus",
        )
    ),
    "monitor": frozenset(("database",)),
}
"""Settings of each role that `up` sets itself, besides those of its brokers and of every role."""
_OF_SIMULATED: Final = frozenset(
    ("cameras", "fps", "drop_ratio", "source", "scenario", "probe_share", "profile", "fleets", "spool_bytes")
)
"""Settings of simulated cameras, which a list of real cameras has of its own."""
_SET_IN_ALL: Final = frozenset(
    name for each in (RoleSettings, KafkaSettings, MqttSettings, TracingSettings) for name in each.model_fields
)


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class UpSettings(SamplingSettings):
    """Settings of `pointillist up`: of the run, and in a table for each role the settings of that role."""

    cameras: int | None = Field(default=None, ge=0, le=MAX_CAMERAS)
    """Number of cameras. Default: 8 for scenes or a data set, 1 for a URL, a device or a video file. 0 starts none, for
    a system whose cameras are attached later or run on other machines."""
    fps: float = Field(default=2.0, ge=0)
    """Frames a second of each camera; 0 sends as fast as back-pressure allows."""
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which the run ends. Default: when the sources end, or on Ctrl-C."""
    drop_ratio: float = Field(default=0.25, ge=0, le=MAX_DROP_RATIO)
    """Share of the pixels that is not sent."""
    source: str = "scene"
    """Source of the cameras: scene, cifar10, a URL, a device, a video file or an npz file."""
    scenario: Path | None = None
    """YAML scenario, a file or the name of a shipped one, in place of equal simulated cameras."""
    cameras_file: Path | None = None
    """List of real cameras (cameras.yaml), in place of simulated ones. It is read again when it changes."""
    bundle: Path | None = None
    """Model bundle: a folder with model.toml, or the name of a bundle. Default: imagenet for real cameras if `make
    setup` has made it, else the shipped bundle that fits the source."""
    probe_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the frames that are sent whole (probes) and checked by STRIP."""
    profile: Profile | None = None
    """Coding of the pixels that are sent: raw, lossless or video. Default: video for a URL, a device or a video file,
    raw for simulated cameras."""
    processors: int = Field(default=1, ge=1, le=16)
    """Number of processors."""
    bridges: int = Field(default=1, ge=1, le=16)
    """Number of bridges."""
    fleets: int | None = Field(default=None, ge=1, le=MAX_PARTS)
    """Number of processes that divide the simulated cameras among them. Default: one for every 2,000 cameras, at most
    one for each core."""
    kafka_nodes: Annotated[Literal[1, 3], BeforeValidator(_number)] = 1
    """Number of Kafka nodes, fixed for a state folder. Three hold three copies of each record, of which two must exist
    before it is acknowledged: any node may die, hang or lose its disk."""
    kafka_retention_s: float | None = Field(default=None, ge=LEAST_RETENTION_S, le=MOST_RETENTION_S)
    """Seconds for which Kafka keeps its records, read or not: frames that wait longer are lost. Default: 86400 for a
    new state folder; an existing one keeps its time."""
    state: Path = Path(".pointillist")
    """State folder: brokers' files, database, spools, logs."""
    report: Path | None = None
    """JSON file for the report of the run. Default: report.json in the state folder."""
    drain_s: float = Field(default=60.0, gt=0)
    """Maximum seconds to wait, after the end, for the verdicts of frames in transit."""
    spool_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Maximum bytes of each simulated camera's spool on disk. A list of cameras has its own: `spool.max_bytes`."""
    prometheus: bool = True
    """Also start Prometheus, Alertmanager and Grafana, as far as they are installed."""
    receivers: Path | None = None
    """YAML file with receivers of alerts and routes to them, in Alertmanager's format."""
    http: str | None = None
    """Address host:port of the console. Default: a free loopback port. An address that other machines reach requires a
    user (`pointillist user add`) and serves HTTPS with a certificate of the fleet's own authority, STATE/pki/ca.crt."""
    listen: str | None = None
    """Address or host name of this machine, ADDRESS[:PORT], to which cameras on other machines connect. Default port:
    8883."""
    http_tls: Path | None = None
    """Folder with tls.crt and tls.key, a certificate for the console in place of the fleet's own."""
    http_plain: bool = False
    """Accept passwords by plain HTTP although other machines reach the console."""
    behind_proxy: Proxy | None = None
    """Address or network of a reverse proxy that terminates TLS. The headers X-Forwarded-For and X-Forwarded-Proto are
    trusted only if it sends them. Requires users, console.openid or console.proxy_login."""
    plain: bool = False
    """Run without TLS, certificates and rights. Only for comparisons, on a machine without other users."""
    allowed_host: tuple[HostName, ...] = ()
    """Host names that the console accepts in requests, besides its address."""

    RESERVED: ClassVar[frozenset[str]] = frozenset(
        f"{role}.{name}" for role, own in SET_BY_UP.items() for name in own | _SET_IN_ALL
    )

    bridge: BridgeSettings = BridgeSettings()
    processor: ProcessorSettings = ProcessorSettings()
    recorder: RecorderSettings = RecorderSettings()
    console: ConsoleSettings = ConsoleSettings()
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        for path in sorted(self.RESERVED):
            role, _, name = path.partition(".")
            if name in getattr(self, role).model_fields_set:
                raise ValueError(f"{path}: expected no value, got one. Remove it: `up` has its own.")
        return self

    @model_validator(mode="after")
    def _check_cameras(self) -> Self:
        if self.cameras_file is not None:
            for name in sorted(self.model_fields_set & _OF_SIMULATED):
                raise ValueError(
                    f"{name}: expected no value with cameras_file, got one. Set it in the list of cameras."
                )
        if self.without_cameras:
            for name in sorted(self.model_fields_set & (_OF_SIMULATED - {"cameras"})):
                raise ValueError(f"{name}: expected no value with cameras = 0, got one. Remove it.")
        return self

    @model_validator(mode="after")
    def _check_console(self) -> Self:
        if self.http_plain and self.http_tls is not None:
            raise ValueError("http_plain: expected it without http_tls, got both. Remove one of them.")
        return self

    @property
    def without_cameras(self) -> bool:
        """Return whether the run starts no camera, and waits for others."""
        return self.cameras == 0 and self.scenario is None

    @property
    def camera_count(self) -> int:
        """Return the number of cameras, unless a scenario names them."""
        return usual_cameras(self.source) if self.cameras is None else self.cameras


def usual_cameras(source: str) -> int:
    """Return the number of cameras without `--cameras`: 8 that share scenes or a data set, else one for the source."""
    return 8 if source in ("scene", "cifar10") or source.endswith(".npz") else 1


def is_real(source: str) -> bool:
    """Return whether a source is a single camera or stream, by a URL or a device."""
    return "://" in source or source.startswith("/dev/")


def source_entry(source: str, cameras: int, fps: float, data: Path | None) -> dict[str, Any]:
    """Return the scenario's `source` for `scene`, `cifar10`, a URL, a device, a video file or an npz file.

    Raises SourceError when a file is missing.
    """
    if source == "scene":
        return {"kind": "scene", "prerendered": PRERENDERED if fps == 0 else 0}
    if source == "cifar10":
        if data is None:
            raise SourceError("POINTILLIST_DATA is missing: expected the folder of the data set cifar10. Set it.")
        return _dataset(data / "cifar10.npz", cameras)
    if is_real(source):
        if cameras > 1:
            raise ConfigError(
                f"--cameras: expected 1 with a URL or device, got {cameras}. List several in a --cameras-file."
            )
        return {"kind": "url", "address": source}
    file = place(source, Path())
    if not file.is_file():
        raise SourceError(f"source: expected scene, cifar10, a URL or an existing file, got {source!r}. Correct it.")
    if file.suffix == ".npz":
        return _dataset(file, cameras)
    return {"kind": "video", "file": str(file.resolve())}


def _dataset(file: Path, cameras: int) -> dict[str, Any]:
    if not file.is_file():
        raise SourceError(f"{file} is missing: expected the data set. Correct POINTILLIST_DATA.")
    return {"kind": "dataset", "file": str(file.resolve()), "stride": cameras}


def require_no_variable_of_a_role(environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable of a role that `up` runs: it would have no effect."""
    for role in SET_BY_UP:
        for name in sorted(environment):
            if name.startswith(prefix_of(role)):
                raise ConfigError(
                    f"{name}: expected a variable of up, got one of a role that you run yourself. Rename it to "
                    f"{prefix_of('up')}{name.removeprefix('POINTILLIST_')}, or unset it."
                )


def scenario_document(settings: UpSettings, data: Path | None) -> dict[str, Any]:
    """Return the scenario of a run: the given file's, or one group of equal cameras."""
    if settings.scenario is not None:
        file = scenario_file(settings.scenario)
        document = read_scenario(file)
        if not isinstance(document, dict):
            raise ConfigError(
                f"{file}: expected a mapping with `site` and `cameras`, got another form. Correct the file."
            )
        return document
    if settings.without_cameras:
        return {"site": DEFAULT_SITE, "cameras": []}
    source = source_entry(settings.source, settings.camera_count, settings.fps, data)
    real = source["kind"] in REAL_KINDS
    # A real camera does not continue the history of a simulated one.
    name = "cam-{index}" if not real else "camera" if settings.camera_count == 1 else "camera-{index}"
    return {
        "site": DEFAULT_SITE,
        "cameras": [
            {
                "name": name,
                "count": settings.camera_count,
                "source": source,
                "fps": settings.fps,
                "drop_ratio": settings.drop_ratio,
                "probe_share": settings.probe_share,
                "profile": settings.profile or ("video" if real else "raw"),
                "spool": {"max_bytes": settings.spool_bytes},
            }
        ],
    }


class CameraLimits(NamedTuple):
    """The most that bridges accept from one camera. The names are those of the bridge's settings."""

    camera_messages_per_s: float
    camera_bytes_per_s: float
    camera_window_bytes: int


def camera_limits(settings: UpSettings, cameras: Sequence[CameraOptions]) -> CameraLimits | None:
    """Return the bridges' limits, from the largest and the fastest camera.

    At least the bridges' defaults for a list of cameras: it may get larger and faster ones while the system runs. None,
    which keeps the defaults, without cameras and when one camera runs as fast as it can.
    """
    if not cameras or not all(camera.fps for camera in cameras):
        return None
    messages, rate, window = LEAST_QUOTA, LEAST_QUOTA_BYTES, LEAST_QUOTA_BYTES
    if settings.cameras_file is not None:
        usual = BridgeSettings.model_fields
        messages, rate, window = (usual[name].default for name in CameraLimits._fields)
    for camera in cameras:
        frame = frame_bytes(camera.source, settings.processor.max_frame_pixels)
        messages = max(messages, QUOTA_OVER_RATE * camera.fps)
        rate = max(rate, QUOTA_OVER_RATE * frame * camera.fps)
        # Twice its unconfirmed frames: after a lost connection it sends those again.
        window = max(window, 2 * min(camera.window.frames * frame, camera.window.bytes) + frame)
    return CameraLimits(messages, rate, round(window))


def frame_bytes(source: SourceSettings, max_frame_pixels: int) -> int:
    """Return the size of a source's largest frame message, raw; for an unknown size, the processors' limit."""
    pixels = max_frame_pixels
    if source.size or source.region or source.kind == "scene":
        width, height = source.size or (source.region[2:] if source.region else SCENE_SIZE)
        pixels = width * height
    return pixels * (source.channels or 3) + MESSAGE_OVERHEAD


def scenario_file(named: Path) -> Path:
    """Return a scenario's file: the given one, or the shipped one of that name. ConfigError lists the shipped ones."""
    if named.exists():
        return named
    shipped = {file.stem: file for file in sorted((Path(str(files("infra"))) / "scenarios").glob("*.yaml"))}
    if str(named) not in shipped:
        raise ConfigError(
            f"--scenario: expected a file or one of {', '.join(shipped)}, got {named}. There is no such file."
        )
    return shipped[str(named)]


def listed_document(cameras: Sequence[CameraSettings]) -> dict[str, Any]:
    """Return a scenario with the names of listed cameras, one site's, and none of their addresses.

    From it, other programs learn which cameras belong to the run.
    """
    names = [camera.camera_id.partition("/") for camera in cameras]
    return {"site": names[0][0], "cameras": [{"name": name} for _, _, name in names]}


def with_bundle_of(document: dict[str, Any], settings: UpSettings) -> UpSettings:
    """Return the settings with the scenario's bundle, unless another was given.

    Without a scenario's, it is the general one for real cameras and for those that are attached later.
    """
    named = document.get("bundle")
    if settings.bundle is not None:
        return settings
    if not isinstance(named, str):
        real = settings.cameras_file is not None or settings.without_cameras or _has_real_camera(document)
        named = GENERAL if real and GENERAL in named_bundles() else None
    return settings if named is None else settings.model_copy(update={"bundle": Path(named)})


def _has_real_camera(document: dict[str, Any]) -> bool:
    """Return whether a scenario, which need not be valid, has a camera with a real source."""
    cameras = document.get("cameras")
    sources = [each.get("source") for each in cameras if isinstance(each, dict)] if isinstance(cameras, list) else []
    return any(isinstance(source, dict) and source.get("kind") in REAL_KINDS for source in sources)


def checks_for_triggers(folder: Path) -> bool:
    """Return whether a bundle's `model.toml` has the table `strip`; true if unreadable: its loader reports that."""
    try:
        return "strip" in parse_toml((folder / "model.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True


def bundle_folder(settings: UpSettings) -> Path:
    """Return the bundle of a run: the given one, else the shipped one that fits the source."""
    have = named_bundles()
    if settings.bundle is None:
        is_scene = settings.source == "scene" or settings.scenario is not None
        simulated = is_scene and settings.cameras_file is None and not settings.without_cameras
        return have["scene" if simulated else "cifar10"]
    if (settings.bundle / "model.toml").is_file():
        return settings.bundle.resolve()
    if str(settings.bundle) in have:
        return have[str(settings.bundle)]
    raise BundleError(
        f"--bundle: expected a folder with model.toml or one of {', '.join(have)}, got {settings.bundle}. There is no "
        "such bundle."
    )
