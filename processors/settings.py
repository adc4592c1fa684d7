"""What a processor is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from processors.pipeline import DenoiseSettings
from processors.stages.reconstruct import Mode
from schemas.limits import USUAL_FRAME_PIXELS
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress


class ProcessorSettings(BaseModel):
    """One processor: a member of a consumer group, with one device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka: KafkaAddress
    """Bootstrap servers, `host:port`."""
    bundle: Path
    """Folder of the model bundle that serves while none is published."""
    model_cache: Path | None = None
    """Folder for copies of published bundles; None makes one and removes it in the end."""
    trust: Path | None = None
    """File of the signers whose published bundles are served; None trusts nobody."""
    model_load_s: float = Field(default=600.0, gt=0)
    """How long a bundle may take to be fetched, loaded and warmed."""

    group: str = PROCESSORS_GROUP
    instance: str | None = None
    """Static group membership: a processor started again under the same name takes its partitions up at once, and
    keeps them for `session_timeout_s` after it has ended. None leaves the group when it ends."""
    session_timeout_s: float = Field(default=6.0, ge=1)
    frames_topic: str = KafkaTopic.FRAMES.value
    verdicts_topic: str = KafkaTopic.VERDICTS.value
    dead_letters_topic: str = KafkaTopic.DEAD_LETTERS.value
    events_topic: str = KafkaTopic.EVENTS.value
    models_topic: str = KafkaTopic.MODELS.value

    mode: Mode = "default"
    """How dropped pixels are rebuilt; see `processors.stages.reconstruct`."""
    denoise: DenoiseSettings | None = None
    """None is `processors.pipeline.usual_denoise` of the mode."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """What runs the networks on a CPU: `auto` is what measures fastest here at the start."""
    precision: Literal["auto", "float32", "tf32", "bf16", "int8"] = "auto"
    """Their arithmetic: `auto` is the fastest that keeps to its tolerance. `tf32` is CUDA's, `int8` the CPU's, and of a
    bundle's own network only where that allows it."""
    compile: bool | None = None
    """Compile the chain on CUDA for frames of the network's size and of 32×32, which takes a minute or so at the start;
    None does. What cannot be compiled runs as it is, and the log says so."""
    threads: int = Field(default=0, ge=0)
    """Of torch on the CPU; 0 is half of the cores, at least one: the brokers and the other roles need the rest, and
    torch's threads that wait for each other spin, which costs several times the work itself when cores are short."""

    batch_frames: int = Field(default=64, ge=1, le=1024)
    batch_pixels: int | None = Field(default=None, ge=1)
    """Height x width x frames of one batch, unless a single frame is larger. A batch of large frames that leaves the
    processor's caches takes about twice as long for each: None is 2**18 on a CPU, 2**20 on CUDA."""
    max_frame_pixels: int = Field(default=USUAL_FRAME_PIXELS, ge=64)
    """Height x width of the largest frame that is taken; what is larger is dead-lettered unseen. A batch is not
    interrupted, so that this bounds how long one frame of one camera keeps all others waiting: the nearer it is to the
    fleet's largest camera, the better."""
    camera_queue_s: float = Field(default=5.0, gt=0)
    """Device time that one camera's frames may wait for while others are there and have far less waiting; what is
    beyond it is dead-lettered, for it would stand in the way of those that share its partition."""
    linger_s: float = Field(default=0.02, ge=0, le=1)
    """How long a frame waits for others, at most: not at all while the device is idle most of the time, and the longer
    the more of it the batches take."""
    queue_frames: int = Field(default=256, ge=1)
    """Frames taken from Kafka whose verdict Kafka does not yet hold; full means that partitions wait."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1)

    strip_queue: int = Field(default=64, ge=1)
    """Probe frames waiting for STRIP; what comes to a full queue is not checked, and counted."""
    strip_queue_bytes: int = Field(default=32 * 2**20, ge=1)
    strip_share: float = Field(default=0.25, gt=0, lt=1)
    """STRIP's part of the device's time while frames wait to be classified."""
    strip_slice_s: float = Field(default=0.1, gt=0)
    """About how long STRIP keeps the device in one go, at least one frame."""

    key_cache_bytes: int = Field(default=128 * 2**20, ge=1)
    """Memory for key frames, under profiles whose frames depend on one. A dropped one is read back from Kafka when a
    frame depends on it."""
    key_wait_s: float = Field(default=2.0, gt=0, le=10)
    """Time that a frame waits for a missing key frame before it is dead-lettered."""
    key_wait_frames: int = Field(default=32, ge=1)
    """Frames that may wait for one; below the share of one partition, so that the key frame can come in after them."""

    preview_interval_s: float = Field(default=1.0, ge=0)
    """At most one preview of each camera in this time."""
    as_sent_interval_s: float = Field(default=5.0, ge=0)
    """At most one picture with its holes, as it was sent, of each camera in this time, and one of a probe."""
    preview_side: int = Field(default=384, ge=16, le=8192)
    """Of its longer side in pixels, at most; see `processors.pipeline.Pipeline.show`."""
    commit_interval_s: float = Field(default=0.2, gt=0)
    drain_s: float = Field(default=8.0, gt=0)
    """Deadline for all of shutdown. A revoked partition has half the session timeout, at most this."""

    @property
    def name(self) -> str:
        """What the processor is called in its group, and where it says which model it serves."""
        return self.instance or f"{socket.gethostname()}-{os.getpid()}"
