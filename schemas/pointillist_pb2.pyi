from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Profile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RAW: _ClassVar[Profile]
    LOSSLESS: _ClassVar[Profile]
    VIDEO: _ClassVar[Profile]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[State]
    ONLINE: _ClassVar[State]
    OFFLINE: _ClassVar[State]
    DEGRADED: _ClassVar[State]
    PAUSED: _ClassVar[State]
    ENDED: _ClassVar[State]

class StripOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOT_PROBED: _ClassVar[StripOutcome]
    CHECKED: _ClassVar[StripOutcome]
    SHED: _ClassVar[StripOutcome]

class Statistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NO_STATISTIC: _ClassVar[Statistic]
    ENTROPY: _ClassVar[Statistic]
    DISAGREEMENT: _ClassVar[Statistic]
    TYPICALITY: _ClassVar[Statistic]
    SCALED_NORMS: _ClassVar[Statistic]
    LAYER_DISAGREEMENT: _ClassVar[Statistic]

class Slot(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NO_SLOT: _ClassVar[Slot]
    SHADOW: _ClassVar[Slot]
    CANARY: _ClassVar[Slot]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEASURING: _ClassVar[Outcome]
    PASSED: _ClassVar[Outcome]
    PROMOTED: _ClassVar[Outcome]
    FAILED: _ClassVar[Outcome]
RAW: Profile
LOSSLESS: Profile
VIDEO: Profile
UNKNOWN: State
ONLINE: State
OFFLINE: State
DEGRADED: State
PAUSED: State
ENDED: State
NOT_PROBED: StripOutcome
CHECKED: StripOutcome
SHED: StripOutcome
NO_STATISTIC: Statistic
ENTROPY: Statistic
DISAGREEMENT: Statistic
TYPICALITY: Statistic
SCALED_NORMS: Statistic
LAYER_DISAGREEMENT: Statistic
NO_SLOT: Slot
SHADOW: Slot
CANARY: Slot
MEASURING: Outcome
PASSED: Outcome
PROMOTED: Outcome
FAILED: Outcome

class Frame(_message.Message):
    __slots__ = ("boot_id", "seq", "captured_ms", "width", "height", "channels", "dropped_per_block", "whole", "profile", "key_generation", "truth", "key_distance", "place", "pixels", "tag", "moving", "traced")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    KEY_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    MOVING_FIELD_NUMBER: _ClassVar[int]
    TRACED_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    seq: int
    captured_ms: int
    width: int
    height: int
    channels: int
    dropped_per_block: int
    whole: bool
    profile: Profile
    key_generation: int
    truth: int
    key_distance: int
    place: int
    pixels: bytes
    tag: int
    moving: int
    traced: bool
    def __init__(self, boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., captured_ms: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ..., dropped_per_block: _Optional[int] = ..., whole: _Optional[bool] = ..., profile: _Optional[_Union[Profile, str]] = ..., key_generation: _Optional[int] = ..., truth: _Optional[int] = ..., key_distance: _Optional[int] = ..., place: _Optional[int] = ..., pixels: _Optional[bytes] = ..., tag: _Optional[int] = ..., moving: _Optional[int] = ..., traced: _Optional[bool] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Confirm(_message.Message):
    __slots__ = ("boot_id", "ranges", "ledger_revision", "key_generation", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    LEDGER_REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    ledger_revision: int
    key_generation: int
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., ledger_revision: _Optional[int] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("boot_id", "revision", "started_ms", "first", "next", "shed", "closed", "frames_skipped", "bytes_resent", "key_generation", "frames_resent", "written_ms", "confirmed_to", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    BYTES_RESENT_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_RESENT_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_MS_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_TO_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    revision: int
    started_ms: int
    first: int
    next: int
    shed: _containers.RepeatedCompositeFieldContainer[Range]
    closed: bool
    frames_skipped: int
    bytes_resent: int
    key_generation: int
    frames_resent: int
    written_ms: int
    confirmed_to: int
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., revision: _Optional[int] = ..., started_ms: _Optional[int] = ..., first: _Optional[int] = ..., next: _Optional[int] = ..., shed: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., closed: _Optional[bool] = ..., frames_skipped: _Optional[int] = ..., bytes_resent: _Optional[int] = ..., key_generation: _Optional[int] = ..., frames_resent: _Optional[int] = ..., written_ms: _Optional[int] = ..., confirmed_to: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("connection", "message", "at_ms")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    connection: int
    message: int
    at_ms: int
    def __init__(self, connection: _Optional[int] = ..., message: _Optional[int] = ..., at_ms: _Optional[int] = ...) -> None: ...

class CommandState(_message.Message):
    __slots__ = ("issued_ms", "dropped_per_block", "probe_share", "profile", "enabled", "asked_ms", "asked_share", "frames_per_second")
    ISSUED_MS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    PROBE_SHARE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    ASKED_MS_FIELD_NUMBER: _ClassVar[int]
    ASKED_SHARE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    issued_ms: int
    dropped_per_block: int
    probe_share: float
    profile: Profile
    enabled: bool
    asked_ms: int
    asked_share: float
    frames_per_second: float
    def __init__(self, issued_ms: _Optional[int] = ..., dropped_per_block: _Optional[int] = ..., probe_share: _Optional[float] = ..., profile: _Optional[_Union[Profile, str]] = ..., enabled: _Optional[bool] = ..., asked_ms: _Optional[int] = ..., asked_share: _Optional[float] = ..., frames_per_second: _Optional[float] = ...) -> None: ...

class Meta(_message.Message):
    __slots__ = ("install_id", "boot_id", "width", "height", "channels", "frames_per_second", "dropped_per_block", "probe_share", "profile", "source", "software", "key_generation", "turn", "command_state", "tag", "stream_frame_bytes", "sent_frame_bytes")
    INSTALL_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    PROBE_SHARE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    COMMAND_STATE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    STREAM_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    install_id: str
    boot_id: int
    width: int
    height: int
    channels: int
    frames_per_second: float
    dropped_per_block: int
    probe_share: float
    profile: Profile
    source: str
    software: str
    key_generation: int
    turn: Turn
    command_state: CommandState
    tag: int
    stream_frame_bytes: int
    sent_frame_bytes: int
    def __init__(self, install_id: _Optional[str] = ..., boot_id: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ..., frames_per_second: _Optional[float] = ..., dropped_per_block: _Optional[int] = ..., probe_share: _Optional[float] = ..., profile: _Optional[_Union[Profile, str]] = ..., source: _Optional[str] = ..., software: _Optional[str] = ..., key_generation: _Optional[int] = ..., turn: _Optional[_Union[Turn, _Mapping]] = ..., command_state: _Optional[_Union[CommandState, _Mapping]] = ..., tag: _Optional[int] = ..., stream_frame_bytes: _Optional[int] = ..., sent_frame_bytes: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("state", "install_id", "boot_id", "detail", "turn", "longest_gap_s", "key_generation", "tag")
    STATE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    LONGEST_GAP_S_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    state: State
    install_id: str
    boot_id: int
    detail: str
    turn: Turn
    longest_gap_s: float
    key_generation: int
    tag: int
    def __init__(self, state: _Optional[_Union[State, str]] = ..., install_id: _Optional[str] = ..., boot_id: _Optional[int] = ..., detail: _Optional[str] = ..., turn: _Optional[_Union[Turn, _Mapping]] = ..., longest_gap_s: _Optional[float] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class KeyRequest(_message.Message):
    __slots__ = ("boot_id", "seq", "key_generation", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    seq: int
    key_generation: int
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("boot_id", "seq", "reason", "detail", "refused_ms", "key_generation", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REFUSED_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    seq: int
    reason: str
    detail: str
    refused_ms: int
    key_generation: int
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., refused_ms: _Optional[int] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("until_ms", "certify", "key_generation", "tag")
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    CERTIFY_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    until_ms: int
    certify: int
    key_generation: int
    tag: int
    def __init__(self, until_ms: _Optional[int] = ..., certify: _Optional[int] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("issued_ms", "dropped_per_block", "probe_share", "profile", "enabled", "reset", "frames_per_second", "key_generation", "tag")
    ISSUED_MS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    PROBE_SHARE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    issued_ms: int
    dropped_per_block: int
    probe_share: float
    profile: Profile
    enabled: bool
    reset: bool
    frames_per_second: float
    key_generation: int
    tag: int
    def __init__(self, issued_ms: _Optional[int] = ..., dropped_per_block: _Optional[int] = ..., probe_share: _Optional[float] = ..., profile: _Optional[_Union[Profile, str]] = ..., enabled: _Optional[bool] = ..., reset: _Optional[bool] = ..., frames_per_second: _Optional[float] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("issued_ms", "probe_share", "key_generation", "tag")
    ISSUED_MS_FIELD_NUMBER: _ClassVar[int]
    PROBE_SHARE_FIELD_NUMBER: _ClassVar[int]
    KEY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    issued_ms: int
    probe_share: float
    key_generation: int
    tag: int
    def __init__(self, issued_ms: _Optional[int] = ..., probe_share: _Optional[float] = ..., key_generation: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("boot_id", "seq", "captured_ms", "processed_ms", "class_id", "class_name", "confidence", "model_id", "policy", "truth", "width", "height", "channels", "dropped_per_block", "profile", "frame_bytes", "pixel_bytes", "strip", "entropy_bits", "threshold_bits", "flagged", "preview", "evidence", "whole", "as_sent", "changed", "class_group", "group_confidence", "best", "certified_patch", "certified", "windows", "p_value", "p_value_threshold", "statistic", "scene", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MS_FIELD_NUMBER: _ClassVar[int]
    PROCESSED_MS_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIXEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    STRIP_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_BITS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BITS_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    AS_SENT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    CLASS_GROUP_FIELD_NUMBER: _ClassVar[int]
    GROUP_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_PATCH_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    seq: int
    captured_ms: int
    processed_ms: int
    class_id: int
    class_name: str
    confidence: float
    model_id: str
    policy: str
    truth: int
    width: int
    height: int
    channels: int
    dropped_per_block: int
    profile: Profile
    frame_bytes: int
    pixel_bytes: int
    strip: StripOutcome
    entropy_bits: float
    threshold_bits: float
    flagged: bool
    preview: bytes
    evidence: bytes
    whole: bool
    as_sent: bytes
    changed: float
    class_group: str
    group_confidence: float
    best: _containers.RepeatedCompositeFieldContainer[Candidate]
    certified_patch: int
    certified: bool
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    p_value: float
    p_value_threshold: float
    statistic: Statistic
    scene: int
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., captured_ms: _Optional[int] = ..., processed_ms: _Optional[int] = ..., class_id: _Optional[int] = ..., class_name: _Optional[str] = ..., confidence: _Optional[float] = ..., model_id: _Optional[str] = ..., policy: _Optional[str] = ..., truth: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ..., dropped_per_block: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., frame_bytes: _Optional[int] = ..., pixel_bytes: _Optional[int] = ..., strip: _Optional[_Union[StripOutcome, str]] = ..., entropy_bits: _Optional[float] = ..., threshold_bits: _Optional[float] = ..., flagged: _Optional[bool] = ..., preview: _Optional[bytes] = ..., evidence: _Optional[bytes] = ..., whole: _Optional[bool] = ..., as_sent: _Optional[bytes] = ..., changed: _Optional[float] = ..., class_group: _Optional[str] = ..., group_confidence: _Optional[float] = ..., best: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., certified_patch: _Optional[int] = ..., certified: _Optional[bool] = ..., windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., p_value: _Optional[float] = ..., p_value_threshold: _Optional[float] = ..., statistic: _Optional[_Union[Statistic, str]] = ..., scene: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("class_name", "confidence")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    confidence: float
    def __init__(self, class_name: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("left", "top", "right", "bottom", "dependence")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCE_FIELD_NUMBER: _ClassVar[int]
    left: int
    top: int
    right: int
    bottom: int
    dependence: float
    def __init__(self, left: _Optional[int] = ..., top: _Optional[int] = ..., right: _Optional[int] = ..., bottom: _Optional[int] = ..., dependence: _Optional[float] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("alert_id", "camera_id", "kind", "raised_ms", "boot_id", "frames", "checked", "flagged", "mean_entropy_bits", "threshold_bits", "thumbnail", "baseline_bits", "evidence_octaves", "class_id", "window", "wanted", "mean_p_value", "p_value_threshold", "baseline_p_value", "statistic", "confidence", "tag")
    ALERT_ID_FIELD_NUMBER: _ClassVar[int]
    CAMERA_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RAISED_MS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    MEAN_ENTROPY_BITS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BITS_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    BASELINE_BITS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_OCTAVES_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    MEAN_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    BASELINE_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    alert_id: str
    camera_id: str
    kind: str
    raised_ms: int
    boot_id: int
    frames: Range
    checked: int
    flagged: int
    mean_entropy_bits: float
    threshold_bits: float
    thumbnail: bytes
    baseline_bits: float
    evidence_octaves: float
    class_id: int
    window: Window
    wanted: str
    mean_p_value: float
    p_value_threshold: float
    baseline_p_value: float
    statistic: Statistic
    confidence: float
    tag: int
    def __init__(self, alert_id: _Optional[str] = ..., camera_id: _Optional[str] = ..., kind: _Optional[str] = ..., raised_ms: _Optional[int] = ..., boot_id: _Optional[int] = ..., frames: _Optional[_Union[Range, _Mapping]] = ..., checked: _Optional[int] = ..., flagged: _Optional[int] = ..., mean_entropy_bits: _Optional[float] = ..., threshold_bits: _Optional[float] = ..., thumbnail: _Optional[bytes] = ..., baseline_bits: _Optional[float] = ..., evidence_octaves: _Optional[float] = ..., class_id: _Optional[int] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., wanted: _Optional[str] = ..., mean_p_value: _Optional[float] = ..., p_value_threshold: _Optional[float] = ..., baseline_p_value: _Optional[float] = ..., statistic: _Optional[_Union[Statistic, str]] = ..., confidence: _Optional[float] = ..., tag: _Optional[int] = ...) -> None: ...

class SignedModels(_message.Message):
    __slots__ = ("models", "signer", "signature")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    models: bytes
    signer: bytes
    signature: bytes
    def __init__(self, models: _Optional[bytes] = ..., signer: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Models(_message.Message):
    __slots__ = ("published", "changed_ms", "rollout")
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    published: _containers.RepeatedCompositeFieldContainer[Model]
    changed_ms: int
    rollout: Rollout
    def __init__(self, published: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., changed_ms: _Optional[int] = ..., rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("candidate", "begun_ms", "slot", "frames", "cameras", "by_rule", "decider", "scan")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    BEGUN_MS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    BY_RULE_FIELD_NUMBER: _ClassVar[int]
    DECIDER_FIELD_NUMBER: _ClassVar[int]
    SCAN_FIELD_NUMBER: _ClassVar[int]
    candidate: Model
    begun_ms: int
    slot: Slot
    frames: float
    cameras: float
    by_rule: bool
    decider: bytes
    scan: str
    def __init__(self, candidate: _Optional[_Union[Model, _Mapping]] = ..., begun_ms: _Optional[int] = ..., slot: _Optional[_Union[Slot, str]] = ..., frames: _Optional[float] = ..., cameras: _Optional[float] = ..., by_rule: _Optional[bool] = ..., decider: _Optional[bytes] = ..., scan: _Optional[str] = ...) -> None: ...

class Assessment(_message.Message):
    __slots__ = ("digest", "begun_ms", "slot", "outcome", "at_ms", "slot_ms", "report")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BEGUN_MS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    SLOT_MS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    begun_ms: int
    slot: Slot
    outcome: Outcome
    at_ms: int
    slot_ms: int
    report: str
    def __init__(self, digest: _Optional[str] = ..., begun_ms: _Optional[int] = ..., slot: _Optional[_Union[Slot, str]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., at_ms: _Optional[int] = ..., slot_ms: _Optional[int] = ..., report: _Optional[str] = ...) -> None: ...

class SignedAssessment(_message.Message):
    __slots__ = ("assessment", "signature")
    ASSESSMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    assessment: bytes
    signature: bytes
    def __init__(self, assessment: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("boot_id", "seq", "captured_ms", "begun_ms", "digest", "slot", "truth", "live", "candidate", "picture", "tag")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_MS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    boot_id: int
    seq: int
    captured_ms: int
    begun_ms: int
    digest: str
    slot: Slot
    truth: int
    live: Answer
    candidate: Answer
    picture: bytes
    tag: int
    def __init__(self, boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., captured_ms: _Optional[int] = ..., begun_ms: _Optional[int] = ..., digest: _Optional[str] = ..., slot: _Optional[_Union[Slot, str]] = ..., truth: _Optional[int] = ..., live: _Optional[_Union[Answer, _Mapping]] = ..., candidate: _Optional[_Union[Answer, _Mapping]] = ..., picture: _Optional[bytes] = ..., tag: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("class_id", "class_name", "confidence", "seconds", "checked", "flagged", "error")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    class_name: str
    confidence: float
    seconds: float
    checked: bool
    flagged: bool
    error: str
    def __init__(self, class_id: _Optional[int] = ..., class_name: _Optional[str] = ..., confidence: _Optional[float] = ..., seconds: _Optional[float] = ..., checked: _Optional[bool] = ..., flagged: _Optional[bool] = ..., error: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("model_id", "location", "published_ms", "digest", "files", "classes", "withdrawn_ms", "strip", "signer", "signature")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_MS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_MS_FIELD_NUMBER: _ClassVar[int]
    STRIP_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    location: str
    published_ms: int
    digest: str
    files: _containers.RepeatedCompositeFieldContainer[BundleFile]
    classes: _containers.RepeatedScalarFieldContainer[str]
    withdrawn_ms: int
    strip: bool
    signer: bytes
    signature: bytes
    def __init__(self, model_id: _Optional[str] = ..., location: _Optional[str] = ..., published_ms: _Optional[int] = ..., digest: _Optional[str] = ..., files: _Optional[_Iterable[_Union[BundleFile, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., withdrawn_ms: _Optional[int] = ..., strip: _Optional[bool] = ..., signer: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BundleFile(_message.Message):
    __slots__ = ("name", "size", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model_id", "digest", "since_ms", "refused_digest", "error", "runs", "candidate_digest", "candidate_error", "candidate_bytes", "candidate_begun_ms", "candidate_retries", "drift")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ERROR_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_BEGUN_MS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_RETRIES_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    digest: str
    since_ms: int
    refused_digest: str
    error: str
    runs: str
    candidate_digest: str
    candidate_error: str
    candidate_bytes: int
    candidate_begun_ms: int
    candidate_retries: bool
    drift: Drift
    def __init__(self, model_id: _Optional[str] = ..., digest: _Optional[str] = ..., since_ms: _Optional[int] = ..., refused_digest: _Optional[str] = ..., error: _Optional[str] = ..., runs: _Optional[str] = ..., candidate_digest: _Optional[str] = ..., candidate_error: _Optional[str] = ..., candidate_bytes: _Optional[int] = ..., candidate_begun_ms: _Optional[int] = ..., candidate_retries: _Optional[bool] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("windows", "pictures", "answers")
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    windows: int
    pictures: float
    answers: float
    def __init__(self, windows: _Optional[int] = ..., pictures: _Optional[float] = ..., answers: _Optional[float] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("origin_topic", "origin_partition", "origin_offset", "stage", "reason", "error", "camera_id", "verified", "boot_id", "seq", "payload", "payload_bytes", "at_ms", "tag")
    ORIGIN_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_PARTITION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CAMERA_ID_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    origin_topic: str
    origin_partition: int
    origin_offset: int
    stage: str
    reason: str
    error: str
    camera_id: str
    verified: bool
    boot_id: int
    seq: int
    payload: bytes
    payload_bytes: int
    at_ms: int
    tag: int
    def __init__(self, origin_topic: _Optional[str] = ..., origin_partition: _Optional[int] = ..., origin_offset: _Optional[int] = ..., stage: _Optional[str] = ..., reason: _Optional[str] = ..., error: _Optional[str] = ..., camera_id: _Optional[str] = ..., verified: _Optional[bool] = ..., boot_id: _Optional[int] = ..., seq: _Optional[int] = ..., payload: _Optional[bytes] = ..., payload_bytes: _Optional[int] = ..., at_ms: _Optional[int] = ..., tag: _Optional[int] = ...) -> None: ...
