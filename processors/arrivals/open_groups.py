"""The groups of pictures that may get more frames, by the places of their first frames in Kafka."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from schemas.identity import CameraId, Identity

_NEWEST_S: Final = 60.0
"""Seconds after its last frame for which a camera's newest group counts as open: the longest group of the settings."""
_RESENT_S: Final = 5.0
"""Seconds for which the group before it counts as open, for frames that are sent again."""
_LONGEST_S: Final = _NEWEST_S + _RESENT_S
"""Seconds after its key frame for which frames keep a group open: later ones would keep an old span of the log open."""
_NEAR: Final = 20_000
"""Records behind its key frame within which frames keep a group open at any time: an outage may have parted them."""
_GROUPS: Final = 2
"""Groups of a camera that begin before the committed offset."""
_AHEAD: Final = 256
"""Most groups of a camera: the processor reads ahead of what it commits."""


@dataclass(slots=True)
class _Group:
    offset: int
    """The lowest offset of its frames: the key frame may come again behind others, after a kill of the bridge."""
    identity: Identity
    used_s: float
    last: int
    """The highest offset of its frames."""


_by_offset: Final = attrgetter("offset")


class OpenGroups:
    """The open groups of this processor's cameras. Times are monotonic."""

    def __init__(self) -> None:
        self._groups: defaultdict[int, dict[CameraId, list[_Group]]] = defaultdict(dict)

    def use(
        self, identity: Identity, partition: int, offset: int, frame_offset: int, now_s: float, age_s: float = 0.0
    ) -> None:
        """Note the frame at `frame_offset` of a group; `identity` and `offset` are those of its key frame.

        `age_s` are the seconds from the key frame to this frame, by their times in Kafka.
        """
        if age_s > _LONGEST_S and frame_offset - offset > _NEAR:
            return
        own = self._groups[partition].setdefault(identity.camera_id, [])
        for group in reversed(own):  # mostly the newest
            if group.identity == identity:
                group.used_s, group.last = now_s, max(group.last, frame_offset)
                if frame_offset < group.offset:
                    group.offset = frame_offset
                    own.sort(key=_by_offset)
                return
        insort(own, _Group(min(offset, frame_offset), identity, now_s, max(offset, frame_offset)), key=_by_offset)
        del own[:-_AHEAD]

    def span(self, partition: int, before: int, now_s: float) -> range:
        """Return the offsets from the first open group up to `before`; empty if no group is open.

        `before` is the offset to commit. A group with frames from this offset on is open: they are processed again
        after a takeover.
        """
        cameras = self._groups[partition]
        first = before
        for camera_id, groups in list(cameras.items()):
            passed = sum(each.offset < before for each in groups)
            del groups[: max(0, passed - _GROUPS)]
            newest = groups[-1]
            if newest.last < before and now_s - newest.used_s > _NEWEST_S:
                del cameras[camera_id]
                continue
            for each in groups:
                open_s = _NEWEST_S if each is newest else _RESENT_S
                if each.offset < before and (each.last >= before or now_s - each.used_s <= open_s):
                    first = min(first, each.offset)
        return range(first, before)
