"""Documents of another console's API, checked: that console may be broken or hostile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from consumers.cameras.episodes import STATES
from consumers.cameras.state import State
from consumers.console.data.cards import Card
from schemas.errors import MalformedError
from schemas.identity import camera_id_on_wire
from schemas.limits import MAX_SIDE

PAGE_CARDS: Final = 500
"""Cameras to request at once."""
MOST_PAGES: Final = 300
"""Pages with which a site's cameras must end: a console of an earlier release gives 60 cameras on a page."""
MOST_ALERTS: Final = 200
_LONGEST: Final = 300
_LARGEST: Final = 2**53 - 1

Document = TypeVar("Document")
Text = Annotated[str, AfterValidator(lambda text: text[:_LONGEST])]
Whole = Annotated[int, Field(ge=0, le=_LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=0, le=MAX_SIDE)]
AlertId = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]


class _DocumentPart(BaseModel):
    """A part of a document. Keys of later releases are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _SentCard(_DocumentPart):
    """A card without its picture, which stays at its console."""

    name: str
    state: State
    detail: Text = ""
    captured_ms: Whole | None = None
    verdict: Text = ""
    group: Text = ""
    best: Text = ""
    confidence: Share = 0.0
    model: Text = ""
    demonstration: Text = ""
    frames_per_second: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    saved: Annotated[float, Field(ge=-1e6, le=1)] | None = None
    own_bytes: Whole = 0
    sent_bytes: Whole = 0
    evidence: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    alert: AlertId = ""
    acknowledged: bool = False
    sighting: AlertId = ""
    muted_until_ms: Whole = 0
    muted_reason: Text = ""
    mute_of_camera: bool = False
    size: tuple[Side, Side, Side] | None = None
    frames: Whole = 0
    console: Text = ""


class _SentCards(_DocumentPart):
    cameras: Annotated[list[_SentCard], Field(max_length=PAGE_CARDS)]
    pages: Annotated[int, Field(ge=1)]


class _SentAlert(_DocumentPart):
    alert_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    camera: str
    kind: Text
    raised_ms: Whole
    checked: Whole
    flagged: Whole
    state: Annotated[str, Field(pattern=f"^({'|'.join(STATES)})$")]
    episode: AlertId = ""
    wanted: Text = ""


class _Refusal(_DocumentPart):
    error: Text


class _SentAudit(_DocumentPart):
    frames_published: Whole
    frames_recorded: Whole
    frames_dead_lettered: Whole
    frames_shed: Whole
    frames_pending: Whole
    frames_lost: Whole
    frames_unread: Whole = 0
    as_of_ms: Whole


_CARDS: Final = TypeAdapter(_SentCards)
_ALERTS: Final[TypeAdapter[list[_SentAlert]]] = TypeAdapter(Annotated[list[_SentAlert], Field(max_length=MOST_ALERTS)])
_AUDIT: Final[TypeAdapter[_SentAudit | _Refusal]] = TypeAdapter(_SentAudit | _Refusal)


@dataclass(frozen=True, slots=True)
class Names:
    """The two names of a site, and the URL of the console that shows it."""

    here: str
    there: str
    url: str

    def camera(self, name: str) -> str:
        """Return a camera's name here. Raises MalformedError for a camera of another site."""
        site, _, own = camera_id_on_wire(name).partition("/")
        if site != self.there:
            raise MalformedError(f"expected cameras of the site {self.there}, got {name}")
        return f"{self.here}/{own}"


@dataclass(frozen=True, slots=True)
class SiteAlert:
    """The newest alert of an episode at another site."""

    alert_id: str
    camera: str
    """Name of the camera here."""
    kind: str
    raised_ms: int
    checked: int
    flagged: int
    state: str
    url: str
    """URL of its page at its console."""
    wanted: str = ""
    """The class or group of a sighting; empty for a backdoor alert."""


def cards_of(body: bytes, names: Names) -> tuple[list[Card], int]:
    """Return the cards on one page of cameras, and the number of pages. Raises MalformedError.

    Cards that the console itself has from another one are left out: its age of them is unknown here.
    """
    found = _checked(_CARDS, body, "cameras")
    cards = [
        Card(
            **{name: getattr(each, name) for name in _SentCard.model_fields if name not in ("name", "console")},
            name=names.camera(each.name),
            console=f"{names.url}/camera/{each.name}",
        )
        for each in found.cameras
        if not each.console
    ]
    return cards, min(found.pages, MOST_PAGES)


def alerts_of(body: bytes, names: Names) -> tuple[SiteAlert, ...]:
    """Return the newest alert of each episode of the site, newest first. Raises MalformedError."""
    newest: dict[tuple[str, str], SiteAlert] = {}
    listed = _checked(_ALERTS, body, "alerts")
    for each in sorted(listed, key=lambda one: one.raised_ms, reverse=True):
        # A console of an earlier release returns the alerts of all sites that the token reads.
        if not camera_id_on_wire(each.camera).startswith(f"{names.there}/"):
            continue
        camera = names.camera(each.camera)
        url = f"{names.url}/alerts/{each.alert_id}"
        counts = (each.raised_ms, each.checked, each.flagged)
        made = SiteAlert(each.alert_id, camera, each.kind, *counts, each.state, url, each.wanted)
        newest.setdefault((camera, each.episode or each.alert_id), made)
    return tuple(newest.values())


def audit_of(body: bytes) -> dict[str, int] | str:
    """Return the counts of a live audit, or the reason why there are none. Raises MalformedError."""
    found = _checked(_AUDIT, body, "audit")
    return found.error if isinstance(found, _Refusal) else found.model_dump()


def _checked(form: TypeAdapter[Document], body: bytes, what: str) -> Document:
    try:
        return form.validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, (what, *problem["loc"])))
        raise MalformedError(f"{place[:100]}: expected the API of a console, got: {problem['msg'][:100]}") from None
