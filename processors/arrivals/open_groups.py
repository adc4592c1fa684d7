"""The groups of pictures that may get more frames, by the places of their first frames in Kafka."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NamedTuple

from schemas.identity import CameraId, Identity

_NEWEST_S: Final = 60.0
"""Seconds after its last frame for which a camera's newest group counts as open: the longest group of the settings."""
_RESENT_S: Final = 5.0
"""Seconds for which the group before it counts as open, for frames that are sent again."""
_GROUPS: Final = 2
"""Groups of a camera."""


class _Group(NamedTuple):
    offset: int
    identity: Identity
    used_s: float


class OpenGroups:
    """The open groups of this processor's cameras. Times are monotonic."""

    def __init__(self) -> None:
        self._groups: defaultdict[int, dict[CameraId, list[_Group]]] = defaultdict(dict)

    def use(self, identity: Identity, partition: int, offset: int, now_s: float) -> None:
        """Note a frame of a group; `identity` and `offset` are those of its key frame."""
        own = self._groups[partition].setdefault(identity.camera_id, [])
        others = [each for each in own if each.identity != identity]
        own[:] = sorted([*others, _Group(offset, identity, now_s)])[-_GROUPS:]

    def first(self, partition: int, before: int, now_s: float) -> int | None:
        """Return the lowest offset below `before` of a key frame whose group is open; None without one."""
        cameras = self._groups[partition]
        found: int | None = None
        for camera_id, groups in list(cameras.items()):
            *older, newest = groups
            if now_s - newest.used_s > _NEWEST_S:
                del cameras[camera_id]
                continue
            for each in (*(group for group in older if now_s - group.used_s <= _RESENT_S), newest):
                if each.offset < before and (found is None or each.offset < found):
                    found = each.offset
        return found
