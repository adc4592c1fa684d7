"""The tree of all errors that the project raises on purpose.

    PointillistError
    ├── UserError                 the user can correct it: one line, exit code 2
    │   ├── ConfigError           a setting, scenario or option has the wrong name, type or range
    │   ├── SecretError           a secret or a camera key is missing, malformed or of another role
    │   ├── SourceError           a camera source cannot be opened or read
    │   │   └── SourceHungError   it returned no frame for the stated time
    │   ├── BundleError           a model bundle is incomplete or does not match its model.toml
    │   ├── BrokerError           MQTT, Kafka or the database does not answer
    │   └── StateError            a state folder is in use, or is not one
    │       └── RestartRequired   a full disk, a damaged file, a lost device: a restart may succeed (code 75)
    ├── WireError                 a payload was rejected; `reason` is its name in metrics and dead letters
    │   ├── MalformedError        not the expected message, or a field out of its range
    │   ├── BadTagError           the authentication tag does not match
    │   ├── RevokedKeyError       signed under a key generation that is no longer accepted
    │   ├── BadSizeError          frame sides, channels or message size out of bounds
    │   ├── TooLargeError         a message is larger than Kafka accepts
    │   ├── OverSizeError         a frame has more pixels than this fleet's cameras have
    │   ├── OverQuotaError        a camera has more frames waiting than it may while others need the device
    │   ├── TooManyBootsError     a camera has started more often than the limit for one camera
    │   ├── BadPixelsError        the pixel data does not decode to what the header announces
    │   ├── NoKeyFrameError       the key frame that a frame depends on is missing
    │   ├── MissingReferenceError an earlier frame of its group of pictures is missing or did not decode
    │   └── DecoderLostError      the decoding process ended or hung on it
    └── StageError                a stage failed on frames that were well formed

Messages give the expected form and the received value.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

_MOST_CHARACTERS: Final = 200


class PointillistError(Exception):
    """The root of the tree."""


class UserError(PointillistError):
    """An error that the user of a command can correct."""

    exit_code: ClassVar[int] = 2


class ConfigError(UserError):
    """A setting, scenario or option has the wrong name, type or range."""


class SecretError(UserError):
    """A secret or a camera key is missing, malformed or of another role."""


class SourceError(UserError):
    """A camera source cannot be opened or read.

    A camera may publish `reason`: it leaves out the source's address, which may contain a password anywhere.
    """

    reason: str = ""

    @classmethod
    def of(cls, name: str, reason: str) -> Self:
        """Return the error of the source that messages call `name`."""
        error = cls(f"{name}: {reason}")
        error.reason = reason
        return error


class SourceHungError(SourceError):
    """A source returned no frame for the stated time."""


class BundleError(UserError):
    """A model bundle is incomplete or does not match its model.toml."""


class BrokerError(UserError):
    """MQTT, Kafka or the database does not answer."""


class StateError(UserError):
    """A state folder is in use, or is not one."""


class RestartRequired(StateError):  # noqa: N818  # a signal to the supervisor
    """The disk is full, a damaged file was set aside, or the device is lost: the next start may succeed without a
    person.
    """

    exit_code = 75
    """`EX_TEMPFAIL` of sysexits.h."""


class WireError(PointillistError):
    """A payload was rejected."""

    reason: ClassVar[str] = "wire"


class MalformedError(WireError):
    """Not the expected message, or a field out of its range."""

    reason: ClassVar[str] = "malformed"


class BadTagError(WireError):
    """The authentication tag does not match."""

    reason: ClassVar[str] = "bad_tag"


class RevokedKeyError(WireError):
    """Signed under a key generation that is no longer accepted."""

    reason: ClassVar[str] = "revoked_key"


class BadSizeError(WireError):
    """Frame sides, channels or message size out of bounds."""

    reason: ClassVar[str] = "bad_size"


class TooLargeError(WireError):
    """A frame is larger than Kafka accepts: the reason of a bridge's refusal. Its dead letter has `bad_size`."""

    reason: ClassVar[str] = "too_large"


class OverSizeError(WireError):
    """A frame has more pixels than this fleet's cameras have."""

    reason: ClassVar[str] = "over_size"


class OverQuotaError(WireError):
    """A camera has more frames waiting than it may while others need the device."""

    reason: ClassVar[str] = "over_quota"


class TooManyBootsError(WireError):
    """A camera has started more often than the limit for one camera."""

    reason: ClassVar[str] = "too_many_boots"


class BadPixelsError(WireError):
    """The pixel data does not decode to what the header announces."""

    reason: ClassVar[str] = "bad_pixels"


class NoKeyFrameError(WireError):
    """The key frame that a frame depends on is missing."""

    reason: ClassVar[str] = "no_key_frame"


class MissingReferenceError(WireError):
    """An earlier frame of its group of pictures is missing or did not decode."""

    reason: ClassVar[str] = "missing_reference"


class DecoderLostError(WireError):
    """The decoding process ended or hung on it."""

    reason: ClassVar[str] = "decoder_lost"


class StageError(PointillistError):
    """A stage failed on frames that were well formed."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def error_text(error: BaseException) -> str:
    """Return at most 200 characters of the error's message; without a message, the name of its type."""
    return str(error)[:_MOST_CHARACTERS] or type(error).__name__


def typed_text(error: BaseException) -> str:
    """Return at most 200 characters of an error's type and its message's first line; without a message, the type."""
    name, line = type(error).__name__, first_line(error)
    return name if not str(error).strip() else f"{name}: {line}"[:_MOST_CHARACTERS]
