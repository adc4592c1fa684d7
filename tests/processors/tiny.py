"""A small untrained bundle, verified frames without Kafka, and the records that cameras would have sent."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import save_file
from torch import Tensor

from processors.arrivals.job import FrameJob, PreviewKind, ServingModel
from processors.arrivals.progress import PartitionProgress
from processors.bundle import Bundle, load_bundle
from processors.bundle.model_toml import Answer
from processors.device.batch_executor import BatchExecutor
from processors.device.compiled_pipeline import CompiledPipeline
from processors.device.loaded_model import LoadedModel, TimeLimit
from processors.metrics import ProcessorMetrics
from processors.networks.resnet import ResNet
from processors.pipeline import Pipeline
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from processors.steps.step import Step
from producers.video.group import GroupEncoder
from producers.video.video_settings import VideoSettings
from schemas.identity import CameraId
from schemas.keys.keys import CameraKey, KeyRing, Purpose
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.frame import Encoding, Truth, encode_frame
from schemas.messages.server_messages import open_pictures, open_statement
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, VIDEO, Frame, Verdict

SECRET = b"a fleet secret of tests"
KEYS = KeyRing(SECRET)
SIGNER = Signer.new()
TRUSTED = TrustedSigners({SIGNER.public: "tests"})
CLASSES = ("stop", "yield", "go")
SERVING_MODEL = cast(
    ServingModel,
    SimpleNamespace(
        model_id="m@1+0",
        policy="resize",
        answer=lambda scores: Answer(CLASSES[scores.class_id], scores.confidence, "", 0.0, ()),
    ),
)
"""A stand-in for the loaded model of a verdict."""
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def network() -> ResNet:
    """Return a network that needs a few milliseconds for a batch."""
    return ResNet(len(CLASSES), depth_per_stage=1, width=4)


def tail_table(name: str, *quantiles: float) -> str:
    """Return the table of a statistic's clean tail, with the power 1."""
    return f"[strip.combined.{name}]\nquantiles = {list(quantiles)}\npower = 1.0\n"


def combined_table(threshold: float, norms: int | None = None) -> str:
    """Return the table of all statistics together. The p-value is 2^−s for the sum s of the rarities."""
    head = f"[strip.combined]\nthreshold = {threshold}\nfrr = 0.01\n"
    tails = tail_table("together", 1.0) + tail_table("entropy", 4.0, 1.5) + tail_table("disagreement", 1.0, 0.5)
    if norms is None:
        return head + tails
    return f"{head}norms = {norms}\n{tails}{tail_table('scaled_norms', 1.4, 1.1)}"


def write_bundle(
    folder: Path,
    *,
    overlays: int = 4,
    threshold_bits: float = 0.0,
    policy: str = "resize",
    side: int = 32,
    combined: float | None = None,
    norms: int | None = None,
) -> Path:
    """Write a `model.toml`, weights and overlays into a folder, and return it.

    `combined` is the p-value below which frames are suspect, and `norms` the number of amplified batch norms.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(network().state_dict(), folder / "weights.safetensors")
    strip = ""
    if overlays:
        generator = np.random.default_rng(0)
        np.save(folder / "overlays.npy", generator.integers(0, 256, (overlays, side, side, 3), dtype=np.uint8))
        strip = f'[strip]\noverlays = "overlays.npy"\nthreshold_bits = {threshold_bits}\nfrr = 0.01\n'
    if combined is not None:
        strip += combined_table(combined, norms)
    factory = "tests.processors.tiny:network"
    return write_model(folder, "tiny", factory, CLASSES, side, policy=policy, more=strip)


def write_model(
    folder: Path,
    name: str,
    factory: str,
    classes: Sequence[str],
    side: int,
    *,
    std: float = 0.25,
    policy: str = "resize",
    more: str = "",
) -> Path:
    """Write the `model.toml` of a bundle folder with the weights `weights.safetensors`; return the folder."""
    (folder / "model.toml").write_text(
        f"""
name = "{name}"
version = "1"
format = "safetensors"
weights = "weights.safetensors"
factory = "{factory}"
classes = {list(classes)!r}

[input]
height = {side}
width = {side}
channels = 3
mean = [0.5, 0.5, 0.5]
std = [{std}, {std}, {std}]
policy = "{policy}"

{more}"""
    )
    return folder


def use_format(folder: Path, kind: str, weights: str) -> None:
    """Change a bundle's `model.toml` to weights of another format, which needs no factory."""
    table = folder / "model.toml"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("factory")]
    text = "\n".join(lines).replace('format = "safetensors"', f'format = "{kind}"')
    table.write_text(text.replace('weights = "weights.safetensors"', f'weights = "{weights}"'))


def use_own_factory(folder: Path, code: str = "") -> None:
    """Change a bundle to a factory in its own `network.py`, which runs `code` when it is imported."""
    table = folder / "model.toml"
    table.write_text(table.read_text().replace("tests.processors.tiny:network", "network.py:network"))
    (folder / "network.py").write_text(f"{code}from tests.processors.tiny import network\n")


def marker_code(file: Path) -> str:
    """Return code that creates a file."""
    return f"from pathlib import Path\nPath({str(file)!r}).touch()\n"


def tiny_bundle(folder: Path, **options: object) -> Bundle:
    """Return the bundle of `write_bundle`, loaded on the CPU."""
    return load_bundle(write_bundle(folder, **options), torch.device("cpu"))  # type: ignore[arg-type]


def batch_executor(bundle: Bundle) -> BatchExecutor:
    """Return a batch executor with its own metrics."""
    return BatchExecutor(CompiledPipeline(Pipeline(bundle)), ProcessorMetrics(CollectorRegistry()))


def picture(seed: int, height: int = 32, width: int = 32, channels: int = 3) -> Picture:
    """Return a random smooth picture: its class varies, and `lossless` can predict its pixels."""
    generator = np.random.default_rng(seed)
    steps = generator.integers(-9, 10, (height, width, channels))
    return (np.cumsum(steps, axis=1) + generator.integers(60, 200, (1, 1, channels))).clip(0, 255).astype(np.uint8)


def camera_key(camera: str) -> CameraKey:
    return KEYS.key(CameraId(camera), 0)


def payload(
    camera: str,
    seq: int,
    *,
    boot_id: int = 7,
    encoding: Encoding | None = None,
    shown: Picture | None = None,
    truth: Truth | None = None,
    moving: int = 0,
) -> bytes:
    """Return a signed frame message. Without `shown`, the sequence number determines the picture."""
    shown = picture(seq) if shown is None else shown
    return encode_frame(camera_key(camera), boot_id, seq, 1000 + seq, shown, encoding or Encoding(), truth, moving)


@dataclass
class FakeRecord:
    value: bytes | None
    key: bytes | None = b"site/cam-0"
    offset: int = 0
    partition: int = 0
    headers: Sequence[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 0


def verified_job(message: bytes, camera: str = "site/cam-0", offset: int = 0) -> FrameJob:
    """Return the job of a verified frame from Kafka."""
    progress = PartitionProgress()
    progress.begin(offset)
    job = FrameJob.of(FakeRecord(message, camera.encode(), offset), progress, 0.0)
    job.open(KEYS)
    return job


def classify_copies(executor: BatchExecutor, jobs: Sequence[FrameJob], wanted: Sequence[int] = ()) -> list[FrameJob]:
    """Return copies of verified frames, classified in one batch; `wanted` lists the kind of preview of each."""
    copies = [copy(job) for job in jobs]
    for job, each in zip(copies, wanted or [PreviewKind.NOTHING] * len(copies), strict=True):
        job.wanted = PreviewKind(each)
    executor.classify(copies)
    return copies


def strip_checked(executor: BatchExecutor, probes: Sequence[Tensor]) -> list[FrameJob]:
    """Return jobs with these inputs for STRIP, checked in one batch."""
    jobs = [verified_job(payload("site/cam-0", seq)) for seq in range(len(probes))]
    for job, probe in zip(jobs, probes, strict=True):
        job.probe = probe
    executor.strip(jobs)
    return jobs


class FakeModel(SimpleNamespace):
    """A stand-in for a loaded model, to which weak references are possible."""


def fake_model(digest: str, model_id: str) -> LoadedModel:
    """Return a stand-in for a loaded model without drift."""
    executor = SimpleNamespace(drift=SimpleNamespace(state=None))
    found = FakeModel(
        digest=digest, model_id=model_id, runs=(), executor=executor, limit=TimeLimit(), close=lambda: None
    )
    return cast(LoadedModel, found)


class FakeEmitter:
    """An emitter that keeps the requests for key frames."""

    def __init__(self) -> None:
        self.records: list[OutgoingRecord] = []

    def offer(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        assert topic == ProcessorSettings.events_topic
        self.records += records


class LastStep(Step):
    """The last step of a chain: it keeps the jobs."""

    def __init__(self) -> None:
        self.jobs: list[FrameJob] = []

    def submit(self, job: FrameJob) -> None:
        self.jobs.append(job)


def verdict_of(record: OutgoingRecord) -> Verdict:
    """Return the verdict of a record to Kafka, as the recorder reads it."""
    camera = CameraId(record.key.decode())
    verdict = open_statement(Verdict, camera, record.value or b"", KEYS)
    open_pictures(verdict, camera, KEYS)
    return verdict


class VideoCamera:
    """A camera of the profile `video` with moving pictures; from Kafka its frames have sequence numbers as offsets."""

    def __init__(
        self, name: str = "site/cam-0", boot_id: int = 7, *, probe_share: float = 0.0, drop: int = 16, **video: int
    ) -> None:
        """`video` are fields of `VideoSettings`."""
        self.name = name
        self.boot_id = boot_id
        self.groups = GroupEncoder(camera_key(name), VideoSettings(**video))  # type: ignore[arg-type]  # numbers
        self.still = False
        """Whether all pictures are equal."""
        self._encoding = Encoding(drop, probe_share, VIDEO)
        self._seq = 0

    def shown(self, seq: int, height: int = 64, width: int = 96) -> Picture:
        """Return a picture: a pattern that moves to the left."""
        down, right = np.mgrid[:height, :width]
        luma = (3 * (right + (0 if self.still else seq)) + 2 * down) % 160 + 40
        return np.stack([luma, 255 - luma, luma // 2], axis=2).astype(np.uint8)

    def message(self) -> bytes:
        """Return the next frame as a signed message."""
        seq, self._seq = self._seq, self._seq + 1
        return self.groups.encode(self.shown(seq), self.boot_id, seq, 1000 + 40 * seq, self._encoding, None)

    def frame(self) -> FrameJob:
        """Return the job of the next frame."""
        seq = self._seq
        return verified_job(self.message(), self.name, seq)


class KeyedCamera:
    """A camera of a made-up profile: each `lossless` frame depends on the last key frame (fixture `keyed_profile`).

    From Kafka its frames come with their sequence numbers as offsets.
    """

    def __init__(self, name: str = "site/cam-0", boot_id: int = 7, drop: int = 16, size: int = 32) -> None:
        self.name = name
        self._boot_id = boot_id
        self._drop = drop
        self._size = size
        self._seq = self._key = 0

    def renew(self) -> None:
        """Make the next frame a key frame."""
        self._key = self._seq

    def message(self) -> bytes:
        """Return the next frame as a signed message."""
        seq, self._seq = self._seq, self._seq + 1
        shown = picture(1, self._size, self._size)
        encoding = Encoding(self._drop, 0.0, LOSSLESS)
        frame = Frame.FromString(payload(self.name, seq, boot_id=self._boot_id, encoding=encoding, shown=shown))
        frame.key_distance = seq - self._key
        frame.ClearField("tag")
        return camera_key(self.name).sign(Purpose.FRAME, frame.SerializeToString())

    def frame(self) -> FrameJob:
        """Return the job of the next frame."""
        seq = self._seq
        return verified_job(self.message(), self.name, seq)
