"""ONVIF cameras of the local network: found by WS-Discovery, and queried for their streams with a login."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigError
from schemas.identity import CAMERA_ID_CHARACTERS, SITE_NAME
from schemas.printable import printable
from schemas.settings import format_address

_NETWORK: Final = "http://www.onvif.org/ver10/network/wsdl"
_DEVICE: Final = "http://www.onvif.org/ver10/device/wsdl"
_SCOPE: Final = "onvif://www.onvif.org/"
ANSWER_S: Final = 10.0
"""Seconds that one address of a camera may take for all queries."""
_MOST: Final = 1024
"""The most answers to a probe that are examined; anything on the network may answer."""
_MOST_ADDRESSES: Final = 4
"""The most addresses of one device that are queried."""
_SITE_CHARACTERS: Final = 40
"""Maximum length of the site: the rest of a camera's id holds the last four groups of an IPv6 address and the port."""


@dataclass(frozen=True)
class ProbeMatch:
    """A device that has answered the probe, at the first of its addresses."""

    host: str
    port: int
    secure: bool
    name: str
    hardware: str
    others: tuple[ProbeMatch, ...] = ()
    """The same device at its further addresses, in its order."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return format_address((self.host, self.port))

    def at(self, hosts: Collection[str]) -> ProbeMatch | None:
        """Return the device with its addresses at these hosts alone, or at any host if none are given; else None."""
        found = [each for each in (self, *self.others) if not hosts or each.host in hosts]
        return replace(found[0], others=tuple(found[1:])) if found else None


@dataclass(frozen=True)
class Stream:
    """One profile of a camera."""

    profile: str
    uri: str = field(repr=False)
    codec: str = ""
    size: tuple[int, int] | None = None
    fps: float | None = None


@dataclass(frozen=True)
class CameraDescription:
    """A camera's description of itself, or the reason that it is missing."""

    answer: ProbeMatch
    model: str = ""
    streams: tuple[Stream, ...] = ()
    problem: str = ""


def probe_networks(seconds: float) -> list[ProbeMatch]:
    """Return the devices that answer a multicast probe on any of this machine's networks in time, by first address.

    Raises ConfigError if the network cannot be used.
    """
    from wsdiscovery import QName
    from wsdiscovery.discovery import ThreadedWSDiscovery

    # Some cameras repeat the message id of the probe in their answer.
    searching = ThreadedWSDiscovery(relates_to=True)
    try:
        searching.start()
    except OSError as error:
        raise ConfigError(
            f"network: expected one with multicast on UDP port 3702, got {error.strerror}. Connect to the "
            "cameras' network."
        ) from None
    try:
        # A device must match all types of one probe, and cameras match one type or the other: one probe for each type.
        for namespace, kind in ((_NETWORK, "NetworkVideoTransmitter"), (_DEVICE, "Device")):
            services = searching.searchServices(types=[QName(namespace, kind)], timeout=0.0)
        services = searching.searchServices(timeout=seconds)
    finally:
        searching.stop()
    found: dict[str, ProbeMatch] = {}
    # The library returns one service for each endpoint reference, which is a device with all its addresses.
    for service in services[:_MOST]:
        scopes = [str(scope.getValue()) for scope in service.getScopes()]
        if not any(scope.startswith(_SCOPE) for scope in scopes):
            continue
        answers: dict[str, ProbeMatch] = {}
        for place in service.getXAddrs():
            with contextlib.suppress(ValueError):
                answer = _answer(str(place), scopes)
                answers.setdefault(answer.address, answer)
        if answers:
            first, *others = list(answers.values())[:_MOST_ADDRESSES]
            found.setdefault(first.address, replace(first, others=tuple(others)))
    return [found[address] for address in sorted(found)]


def _answer(place: str, scopes: list[str]) -> ProbeMatch:
    """Read the address of a device service; ValueError for any other text."""
    parts = urlsplit(place)
    if parts.scheme not in ("http", "https") or not parts.hostname or printable(parts.hostname) != parts.hostname:
        raise ValueError(place)
    secure = parts.scheme == "https"
    return ProbeMatch(
        parts.hostname,
        parts.port or (443 if secure else 80),
        secure,
        _scope(scopes, "name"),
        _scope(scopes, "hardware"),
    )


def _scope(scopes: Iterable[str], kind: str) -> str:
    """Return the scopes of a `kind`, cleaned for display: they come from a stranger."""
    start = f"{_SCOPE}{kind}/"
    return next((seen(unquote(scope[len(start) :])) for scope in scopes if scope.startswith(start)), "")


def seen(text: object, most: int = 80) -> str:
    """Return a stranger's text, shortened and without control characters for the terminal."""
    return printable(str(text if text is not None else ""), "")[:most]


async def describe_all(answers: list[ProbeMatch], user: str, password: str) -> list[CameraDescription]:
    """Query all cameras at once for model and streams; a camera without an answer is returned with its reason."""
    return list(await asyncio.gather(*(_described(answer, user, password) for answer in answers)))


async def _described(device: ProbeMatch, user: str, password: str) -> CameraDescription:
    """Query the addresses of a device in turn until one answers, even with an error."""
    problem = ""
    for answer in (device, *device.others):
        try:
            return await _queried(answer, user, password)
        except OSError as error:  # also a timeout
            problem = problem or seen(error)
    return CameraDescription(device, problem=problem)


async def _queried(answer: ProbeMatch, user: str, password: str) -> CameraDescription:
    """Query one address. Raises OSError, without the password, if nothing answers there."""
    from onvif import ONVIFCamera

    logging.getLogger().setLevel(logging.WARNING)  # the library's import has set another level
    # The library puts brackets around an IPv6 address only where no scheme stands before it.
    host = format_address((answer.host, answer.port)).rpartition(":")[0]
    host = f"https://{host}" if answer.secure else host
    camera = ONVIFCamera(host, answer.port, user, password, no_cache=True, adjust_time=True)
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _ask(camera, answer)
    except TimeoutError:
        raise TimeoutError(f"has not answered for {ANSWER_S:g} s") from None
    except Exception as error:  # a stranger's answer may break the library anywhere
        text = " ".join(str(error).replace(password, "…").split()) if password else str(error)
        if isinstance(error, OSError):
            raise OSError(text or type(error).__name__) from None
        return CameraDescription(answer, problem=seen(text) or type(error).__name__)
    finally:
        with contextlib.suppress(Exception):
            await camera.close()


async def _ask(camera: Any, answer: ProbeMatch) -> CameraDescription:
    await camera.update_xaddrs()
    device = await camera.create_devicemgmt_service()
    information = await device.GetDeviceInformation()
    media = await camera.create_media_service()
    streams: list[Stream] = []
    failure: Exception | None = None
    for profile in await media.GetProfiles() or ():
        try:
            streams.append(await _stream(media, profile))
        except Exception as error:  # a profile that is incomplete has no stream: the others have
            failure = failure or error
    if failure is not None and not streams:
        raise failure
    return CameraDescription(answer, seen(f"{information.Manufacturer} {information.Model}"), tuple(streams))


async def _stream(media: Any, profile: Any) -> Stream:
    setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
    uri = await media.GetStreamUri({"StreamSetup": setup, "ProfileToken": profile.token})
    encoder = profile.VideoEncoderConfiguration
    size = getattr(encoder, "Resolution", None)
    width, height = getattr(size, "Width", None), getattr(size, "Height", None)
    rate = getattr(getattr(encoder, "RateControl", None), "FrameRateLimit", None)
    return Stream(
        seen(profile.Name),
        seen(uri.Uri, 2000),
        seen(getattr(encoder, "Encoding", "")),
        (int(width), int(height)) if width and height else None,
        float(rate) if rate else None,
    )


def check_site(site: str) -> None:
    """Raise ConfigError if `site` is no name of a site, or leaves no room for the names of cameras."""
    if not SITE_NAME.fullmatch(site) or len(site) > _SITE_CHARACTERS:
        raise ConfigError(
            f"site: expected a name of a-z 0-9 _ . -, at most {_SITE_CHARACTERS} characters, got {site[:80]!r}. Use "
            "another one."
        )


def camera_name(described: CameraDescription, taken: set[str], site: str) -> str:
    """Return a valid camera name for `site`, from its own name, and with its address if that name is taken."""
    most = CAMERA_ID_CHARACTERS - len(f"{site}/")
    text = described.answer.name or described.model or "camera"
    name = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[: min(40, most)] or "camera"
    if name in taken:
        # Cameras of one network differ in the end of a long address.
        address = re.sub(r"[^a-z0-9]+", "-", described.answer.address).strip("-")[-(most - 2) :]
        name = f"{name[: most - len(address) - 1]}-{address}"
    taken.add(name)
    return name
