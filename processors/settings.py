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
    """Model bundle that serves while none is published: a folder with model.toml, or the name of a bundle: shipped,
    or made on this machine."""
    model_cache: Path | None = None
    """Folder for copies of published bundles. Default: in the state folder; without one, a temporary folder."""
    trust: Path | None = None
    """File of the trusted signers, one line `ssh-ed25519 BASE64 NAME` for each. Only bundles that trusted signers
    publish are served. Default: the file in the state folder; without a file, no signer is trusted."""
    model_load_s: float = Field(default=600.0, gt=0)
    """Maximum seconds to fetch, load and warm up a published bundle."""

    group: str = PROCESSORS_GROUP
    """Consumer group of the processors that share the frames."""
    instance: str | None = None
    """Name for static group membership. A processor that crashes and returns under the same name resumes its
    partitions; they stay reserved for session_timeout_s. A processor that is stopped leaves the group in any case."""
    session_timeout_s: float = Field(default=6.0, ge=1)
    """Seconds without a heartbeat after which Kafka moves the partitions to another processor."""

    mode: Mode = "default"
    """Reconstruction of dropped pixels: default (learned), paper (Algorithm 1), plate (thin plate, not learned) or none
    (the network alone)."""
    denoise: DenoiseSettings | None = None
    """The denoiser after the reconstruction. Default: BayesShrink with a sigma of 0.01 in the modes paper and plate, no
    denoiser in the modes default and none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the networks: auto uses CUDA if it is available."""
    backend: Literal["auto", "torch", "openvino"] = "auto"
    """Runtime of the networks on a CPU: auto is the fastest by a measurement at the start."""
    backend_cache: Path | None = None
    """Folder in which the choice of backend is kept for 30 days, for the same CPU and the same versions. It takes at
    most 512 MiB, in a sub-folder that only the role's user may write; remove the sub-folder to measure again. Default:
    no folder, a measurement at each start."""
    precision: Literal["auto", "float32", "tf32", "bf16", "int8"] = "auto"
    """Arithmetic of the networks: auto is the fastest that changes no verdict. tf32 needs CUDA, int8 a CPU, and a
    bundle's own network uses int8 only where the bundle allows it."""
    compile: bool | None = None
    """On CUDA: compile one device program for frames of 32×32 and of the network's size, which takes about a minute at
    the start. Default: compile; if that fails, log it and run uncompiled."""
    threads: int = Field(default=0, ge=0)
    """Threads of torch on a CPU; 0 is half of the cores. Other roles need the rest, and torch's threads spin while they
    wait for each other."""

    batch_frames: int = Field(default=64, ge=1, le=1024)
    """Maximum number of frames in a batch."""
    batch_pixels: int | None = Field(default=None, ge=1)
    """Maximum height × width × frames of a batch; a larger frame is a batch of its own. Default: 2^18 on a CPU, where a
    batch beyond the caches takes about twice as long for each frame, and 2^20 on CUDA."""
    max_frame_pixels: int = Field(default=USUAL_FRAME_PIXELS, ge=64)
    """Maximum height × width of a frame; larger frames become dead letters. A batch is not interrupted, so this bounds
    the time that one frame delays all others. Set it to the size of the fleet's largest camera."""
    camera_queue_s: float = Field(default=5.0, gt=0)
    """Maximum device time, in seconds, for the waiting frames of one camera while other cameras wait with far less.
    Frames beyond it become dead letters, because they would delay the cameras of the same partition."""
    linger_s: float = Field(default=0.02, ge=0, le=1)
    """Maximum linger of a batch, in seconds. The linger adapts to the load: it is zero while the device is mostly idle,
    and longer as batches take longer."""
    gather_s: float = Field(default=0.0, ge=0, le=1)
    """Seconds for which Kafka gathers frames before it answers a fetch. Larger answers take less CPU time for each
    frame, but a frame waits for up to twice this long. 0 delivers each frame at once."""
    queue_frames: int = Field(default=256, ge=1)
    """Maximum frames in progress, from Kafka to an acknowledged verdict. At the maximum the partitions are paused."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1)
    """Maximum bytes of the frames in progress."""

    strip_queue: int = Field(default=64, ge=1)
    """Maximum number of probe frames that wait for STRIP. If there are more, the newest frame of the camera with the
    most waiting ones is counted and not checked."""
    strip_queue_bytes: int = Field(default=32 * 2**20, ge=1)
    """Maximum bytes of the frames that wait for STRIP."""
    strip_wait_s: float = Field(default=2.0, gt=0)
    """Maximum wait of a frame for STRIP, in seconds after its classification; beyond it the frame is counted and not
    checked. A check that is later than its camera's other frames by the rule's `patience_s` is no evidence."""
    strip_share: float = Field(default=0.25, gt=0, lt=1)
    """STRIP's share of the device time while frames wait for classification."""
    strip_slice_s: float = Field(default=0.1, gt=0)
    """Approximate seconds for which STRIP occupies the device without a break; always at least one frame."""

    certify_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the frames whose label is certified against adversarial patches, besides the probes that STRIP flags."""
    certify_area: float = Field(default=0.02, gt=0, le=0.25)
    """Area of the square patch as a share of the frame's area."""
    certify_windows: int = Field(default=4, ge=2, le=12)
    """Maximum number of windows along a side. More windows certify more labels; the number of passes grows with the
    fourth power."""
    certify_queue: int = Field(default=16, ge=1)
    """Maximum number of frames that wait for their certificate. If there are more, the newest frame of the camera with
    the most waiting ones gets a verdict without a certificate."""
    certify_queue_bytes: int = Field(default=16 * 2**20, ge=1)
    """Maximum bytes of the frames that wait for their certificate."""
    certify_wait_s: float = Field(default=3.0, gt=0)
    """Deadline of a frame's certificate, in seconds after its classification. If it cannot be met, the frame gets a
    verdict without a certificate. Confirmations to the cameras of its partition may wait for this long. Keep it below
    the `patience_s` of the recorder's rule of evidence: a flagged probe with a later verdict is no evidence."""

    comparison_queue: int = Field(default=32, ge=1)
    """Maximum number of frames that wait for the second model of a rollout. If there are more, the newest frame of the
    camera with the most waiting ones is counted and dropped."""
    comparison_queue_bytes: int = Field(default=32 * 2**20, ge=1)
    """Maximum bytes of the frames that wait for the second model."""
    comparison_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the device time for the second model and for certificates while frames wait for classification."""

    candidate_timeout_s: float = Field(default=10.0, gt=0)
    """Maximum seconds for one batch of a rollout's candidate. Beyond it the processor stops the candidate, and the gate
    withdraws it."""

    device_timeout_s: float = Field(default=300.0, gt=0)
    """Maximum seconds for one piece of work on the device, such as a batch. Beyond a fifth of it, `/healthz` names the
    condition `device`. Beyond it, the processor ends, and its supervisor starts it again. Set it to more
    than four times `candidate_timeout_s`: a comparison calls a candidate up to four times."""

    drift_interval_s: float = Field(default=15.0, gt=0)
    """Minimum seconds between two frames of the drift statistics. Every 64 frames are compared with the bundle's
    calibration pictures."""

    key_cache_bytes: int = Field(default=128 * 2**20, ge=1)
    """Maximum bytes of decoded key frames, for profiles whose frames depend on a key frame. Evicted key frames are read
    from Kafka again on demand."""
    key_wait_s: float = Field(default=2.0, gt=0, le=10)
    """Seconds for which a frame waits for a missing key frame before it becomes a dead letter. A tenth of the time
    counts while records are unread: the key frame may be among them."""
    key_wait_frames: int = Field(default=32, ge=1)
    """Maximum number of frames that wait for key frames. Set it below one partition's share of queue_frames, to leave
    room for the key frame."""

    decoding_processes: int = Field(default=1, ge=1, le=64)
    """Number of processes that decode frames of the profile video, besides one for cameras with a rejected frame, or
    whose frame has ended a process. They start at the first such frame."""
    decoding_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Maximum seconds for one frame in a decoding process; a process that takes longer is replaced."""
    decoding_unconfined: bool = False
    """Whether the profile video is decoded also where the kernel accepts no filter of system calls: an attacker who
    exploits a fault of a decoder by a camera's frames could then read the files of this role."""
    group_wait_s: float = Field(default=2.0, gt=0, le=30)
    """Seconds for which a frame waits for an earlier frame of its group before the rest of the group becomes dead
    letters. A tenth of the time counts while records are unread: the earlier frame may be among them."""
    group_wait_frames: int = Field(default=32, ge=1)
    """Maximum number of frames of one camera that wait. Together, the waiting frames of a partition are limited to half
    of its share: beyond that, the camera with the most of them gives up a group."""
    group_bytes: int = Field(default=256 * 2**20, ge=1)
    """Maximum bytes of the coded frames of open groups, which are kept to open a closed decoder again."""
    decoder_pixels: int = Field(default=33 * 2**20, ge=64)
    """Maximum sum of height × width + 32,768 over a process's open decoders. Beyond it, surplus cameras decode their
    groups again."""

    preview_interval_s: float = Field(default=1.0, ge=0)
    """Minimum seconds between two previews of a camera."""
    as_sent_interval_s: float = Field(default=5.0, ge=0)
    """Minimum seconds between two pictures of a camera as it was sent, with its dropped pixels, and between two
    pictures of a probe."""
    view_interval_s: float = Field(default=0.2, ge=0)
    """Minimum seconds between two previews of a camera while its page is open in a console."""
    preview_side: int = Field(default=384, ge=16, le=8192)
    """Maximum longer side of a preview, in pixels."""
    commit_interval_s: float = Field(default=0.2, gt=0)
    """Seconds between two commits of offsets."""
    drain_s: float = Field(default=8.0, gt=0)
    """Deadline of the shutdown, in seconds. A revoked partition is drained within half of the session timeout, at most
    within this deadline."""

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
