"""Settings of a processor."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from processors.stages.modes import DenoiseSettings, Mode
from schemas.limits import USUAL_FRAME_PIXELS
from schemas.settings import KafkaSettings, RoleSettings, TracingSettings
from schemas.topics import PROCESSORS_GROUP, KafkaTopic


class ProcessorSettings(RoleSettings, KafkaSettings, TracingSettings):
    """Settings of a processor: a member of a consumer group, with one device."""

    bundle: Path = Path("scene")
    """Model bundle that serves while none is published: a folder with model.toml, or the name of a shipped bundle."""
    model_cache: Path | None = None
    """Folder for copies of published bundles; none is in the state folder, or temporary without one."""
    trust: Path | None = None
    """File of the trusted signers, one line `ssh-ed25519 BASE64 NAME` for each. Only bundles that trusted signers
    publish are served. None is the file of the state folder; without that file, no signer is trusted."""
    model_load_s: float = Field(default=600.0, gt=0)
    """Maximum seconds to fetch, load and warm up a published bundle."""

    group: str = PROCESSORS_GROUP
    """Consumer group of the processors that share the frames."""
    instance: str | None = None
    """Name for static group membership. A processor that crashes and returns under the same name resumes its
    partitions; they stay reserved for session_timeout_s. One that ends in order leaves the group in any case."""
    session_timeout_s: float = Field(default=6.0, ge=1)
    """Seconds without a heartbeat after which Kafka moves the partitions to another processor."""

    mode: Mode = "default"
    """Reconstruction of dropped pixels: default (learned), paper (Algorithm 1), plate (thin plate, not learned) or none
    (the network alone)."""
    denoise: DenoiseSettings | None = None
    """Settings of the denoiser; none uses the mode's own settings."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the networks: auto uses CUDA if it is available."""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """Runtime of the networks on a CPU: auto is the fastest by a measurement at the start."""
    backend_cache: Path | None = None
    """Folder in which the choices of backend are kept for 30 days, on the same processor with the same versions. They
    take at most 512 MiB, in a subfolder that only the role's user may write. Remove that to measure again. None
    measures at each start."""
    precision: Literal["auto", "float32", "tf32", "bf16", "int8"] = "auto"
    """Arithmetic of the networks: auto is the fastest that changes no verdict. tf32 needs CUDA, int8 a CPU, and a
    bundle's own network uses int8 only where the bundle allows it."""
    compile: bool | None = None
    """On CUDA: compile one device program for frames of 32×32 and of the network's size. This takes about a minute at
    the start. None compiles; a program that cannot be compiled runs as it is, with a line in the log."""
    threads: int = Field(default=0, ge=0)
    """Threads of torch on a CPU; 0 is half of the cores. Other roles need the rest, and torch's threads spin while they
    wait for each other."""

    batch_frames: int = Field(default=64, ge=1, le=1024)
    """Maximum number of frames in a batch."""
    batch_pixels: int | None = Field(default=None, ge=1)
    """Maximum height × width × frames of a batch; one larger frame is a batch. None is 2^18 on a CPU and 2^20 on CUDA:
    a batch beyond the processor's caches takes about twice as long for each frame."""
    max_frame_pixels: int = Field(default=USUAL_FRAME_PIXELS, ge=64)
    """Maximum height × width of a frame; larger frames become dead letters. A batch is not interrupted, so this bounds
    the time that one frame delays all others. Best set to the size of the fleet's largest camera."""
    camera_queue_s: float = Field(default=5.0, gt=0)
    """Device time that the waiting frames of one camera may need while other cameras wait with far less. Frames beyond
    it become dead letters, because they would delay the cameras of the same partition."""
    linger_s: float = Field(default=0.02, ge=0, le=1)
    """Seconds for which a frame waits for others, at most. Zero while the device is mostly idle, longer the more time
    the batches take."""
    gather_s: float = Field(default=0.0, ge=0, le=1)
    """Seconds for which Kafka gathers frames before it answers. Frames then come together, and each takes less CPU
    time; each also waits for up to twice this long. Zero delivers each frame at once."""
    queue_frames: int = Field(default=256, ge=1)
    """Frames in progress, from Kafka to an acknowledged verdict. At the bound the partitions are paused."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of the frames in progress."""

    strip_queue: int = Field(default=64, ge=1)
    """Probe frames that wait for STRIP. If there are more, the newest frame of the camera with the most waiting ones is
    counted and not checked."""
    strip_queue_bytes: int = Field(default=32 * 2**20, ge=1)
    """Bytes of the frames that wait for STRIP."""
    strip_wait_s: float = Field(default=2.0, gt=0)
    """Seconds after its classification at which a frame that waits for STRIP goes on, counted and not checked. Checks
    that come later than the other frames of their camera by the rule's `patience_s` would be no evidence."""
    strip_share: float = Field(default=0.25, gt=0, lt=1)
    """STRIP's share of the device time while frames wait for classification."""
    strip_slice_s: float = Field(default=0.1, gt=0)
    """Seconds for which STRIP occupies the device without a break, about, and for one frame at least."""

    certify_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the frames whose label is certified against stickers, besides the probes that STRIP flags."""
    certify_area: float = Field(default=0.02, gt=0, le=0.25)
    """Area of the square sticker as a share of the frame's area."""
    certify_windows: int = Field(default=4, ge=2, le=12)
    """Maximum number of windows along a side. More windows certify more labels, and cost the fourth power in passes."""
    certify_queue: int = Field(default=16, ge=1)
    """Frames that wait for their certificate. If there are more, the newest frame of the camera with the most waiting
    ones gets a verdict without a certificate."""
    certify_queue_bytes: int = Field(default=16 * 2**20, ge=1)
    """Bytes of the frames that wait for their certificate."""
    certify_wait_s: float = Field(default=3.0, gt=0)
    """Seconds after its classification by which a frame's certificate must come. A frame whose certificate would come
    later goes on without one. The confirmations of its partition's cameras may wait for this long."""

    comparison_queue: int = Field(default=32, ge=1)
    """Frames that wait for the second model of a rollout. If there are more, the newest frame of the camera with the
    most waiting ones is counted and dropped."""
    comparison_queue_bytes: int = Field(default=32 * 2**20, ge=1)
    """Bytes of the frames that wait for the second model."""
    comparison_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the device time for the second model and for certificates while frames wait for classification."""

    candidate_timeout_s: float = Field(default=10.0, gt=0)
    """Seconds for one batch of a rollout's candidate. Beyond them the processor gives the candidate up, and the gate
    withdraws it."""

    drift_interval_s: float = Field(default=15.0, gt=0)
    """Seconds between two frames of the drift statistics, at least. Every 64 frames are compared with the bundle's
    calibration pictures."""

    key_cache_bytes: int = Field(default=128 * 2**20, ge=1)
    """Bytes of decoded key frames, under profiles whose frames depend on one. Evicted ones are read from Kafka again on
    demand."""
    key_wait_s: float = Field(default=2.0, gt=0, le=10)
    """Seconds for which a frame waits for a missing key frame before it becomes a dead letter. A tenth of the time
    counts while records are unread: the key frame may be among them."""
    key_wait_frames: int = Field(default=32, ge=1)
    """Frames that may wait so; less than the share of one partition, for the key frame to come in behind them."""

    decoding_processes: int = Field(default=1, ge=1, le=64)
    """Processes that decode frames of the profile video, besides one for cameras that have ended a process. None starts
    before the first such frame."""
    decoding_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds for one frame in a decoding process; a process that takes longer is replaced."""
    group_wait_s: float = Field(default=2.0, gt=0, le=30)
    """Seconds for which a frame waits for an earlier frame of its group before the rest of the group becomes dead
    letters. A tenth of the time counts while records are unread: the earlier frame may be among them."""
    group_wait_frames: int = Field(default=32, ge=1)
    """Frames of one camera that may wait so. All that wait are less than half of their partition's share, and take less
    than half of queue_bytes: beyond that, the camera with the most of them gives up a group."""
    group_bytes: int = Field(default=256 * 2**20, ge=1)
    """Bytes of the coded frames of open groups, with which closed decoders are opened again."""
    decoder_pixels: int = Field(default=33 * 2**20, ge=64)
    """Sum of height × width + 32,768 over a process's open decoders; beyond it, surplus cameras decode their groups
    again."""

    preview_interval_s: float = Field(default=1.0, ge=0)
    """Seconds between two previews of a camera, at least."""
    as_sent_interval_s: float = Field(default=5.0, ge=0)
    """Seconds between two pictures of a camera as it was sent, with its dropped pixels, and between two of a probe."""
    view_interval_s: float = Field(default=0.2, ge=0)
    """Seconds between two previews of a camera, at least, while its page is open in a console."""
    preview_side: int = Field(default=384, ge=16, le=8192)
    """Maximum longer side of a preview, in pixels."""
    commit_interval_s: float = Field(default=0.2, gt=0)
    """Seconds between two commits of offsets."""
    drain_s: float = Field(default=8.0, gt=0)
    """Deadline of the shutdown, in seconds. A revoked partition has half of the session timeout, and no more than
    this."""

    frames_topic: ClassVar[str] = KafkaTopic.FRAMES.value
    verdicts_topic: ClassVar[str] = KafkaTopic.VERDICTS.value
    comparisons_topic: ClassVar[str] = KafkaTopic.COMPARISONS.value
    dead_letters_topic: ClassVar[str] = KafkaTopic.DEAD_LETTERS.value
    events_topic: ClassVar[str] = KafkaTopic.EVENTS.value
    models_topic: ClassVar[str] = KafkaTopic.MODELS.value
    views_topic: ClassVar[str] = KafkaTopic.VIEWS.value

    @property
    def name(self) -> str:
        """The member's name in its group and in the records about the model that it serves."""
        return self.instance or f"{socket.gethostname()}-{os.getpid()}"
