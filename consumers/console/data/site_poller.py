"""Poller of the consoles of other sites. Each has one connection, and bounds on time and size; no page waits for it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import httpx2
import structlog

from consumers.console.access.login_settings import read_secret
from consumers.console.data.cards import Card
from consumers.console.data.fleet import Fleet
from consumers.console.data.site_documents import PAGE_CARDS, Names, alerts_of, audit_of, cards_of
from consumers.console.data.sites import Site, merge_cards, without_duplicates
from consumers.console.settings import SiteSettings
from schemas.clock import unix_ms
from schemas.errors import BrokerError, ConfigError, MalformedError, error_text
from schemas.limits import MAX_CAMERAS
from schemas.transport.http import client_tls

POLL_S: Final = 2.0
"""Least pause between two polls in seconds."""
_REST: Final = 5.0
"""Least pause after a successful poll, in times of its duration: a console works for its reader a sixth of the time."""
ANSWER_S: Final = 5.0
"""Seconds for one whole answer."""
ALL_S: Final = 20.0
"""Seconds for all answers of one poll."""
AWAY_S: Final = 10.0
"""Seconds without a valid answer after which a site is away."""
LARGEST: Final = 2**21
"""Bytes of one answer."""
_TOKEN: Final = re.compile(r"[!-~]{1,500}")
NO_RIGHT: Final = "the token has no role for all sites"

log = structlog.get_logger()


class SiteClient:
    """The API of one console, for one site."""

    def __init__(self, name: str, settings: SiteSettings) -> None:
        """Read token and authorities. Raises ConfigError for a file that cannot be read."""
        self.names = Names(name, settings.name_there or name, settings.url.rstrip("/"))
        self._settings = settings
        self._place = f"sites.{name}"
        self._headers()
        try:
            tls = client_tls(settings.ca_file)
        except OSError as error:
            raise ConfigError(
                f"{self._place}.ca_file: expected a file of authorities, got {error}. Correct it."
            ) from None
        # No proxy of the environment, no redirects: the token is for this console alone.
        self._client = httpx2.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            timeout=ANSWER_S,
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
        )

    async def read(self) -> Site:
        """Return the site as its console shows it now. Raises UserError or MalformedError."""
        names = self.names
        try:
            async with asyncio.timeout(ALL_S):
                cards: list[Card] = []
                page = pages = 1
                while page <= pages:
                    # A console of an earlier release ignores the order.
                    query = {"site": names.there, "cards": str(PAGE_CARDS), "page": str(page), "order": "name"}
                    found, pages = cards_of(await self._body("cameras", query), names)
                    cards += found
                    page += 1
                    if len(cards) > MAX_CAMERAS:
                        raise MalformedError(f"cameras: expected at most {MAX_CAMERAS}, got more")
                alerts = alerts_of(await self._body("alerts", {"site": names.there}), names)
                status, body = await self._get("audit")
        except TimeoutError:
            raise BrokerError(f"expected all answers within {ALL_S:g} s, got some") from None
        audit = NO_RIGHT if status == 403 else audit_of(_ok(status, body, "audit"))
        known, none = (None, audit) if isinstance(audit, str) else (audit, "")
        return Site(names.here, names.url, merge_cards(cards), alerts, known, none, unix_ms(), is_away=False)

    async def _body(self, name: str, query: Mapping[str, str]) -> bytes:
        return _ok(*await self._get(name, query), name)

    async def _get(self, name: str, query: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream(
                    "GET",
                    f"{self.names.url}/api/v1/{name}",
                    params=query,
                    headers=self._headers(),
                    extensions={"trace": _closer()},
                ) as answer,
            ):
                async for part in answer.aiter_raw():  # never decompressed
                    body += part
                    if len(body) > LARGEST:
                        raise MalformedError(f"{name}: expected at most {LARGEST} bytes, got more")
                return answer.status_code, bytes(body)
        except (TimeoutError, httpx2.TimeoutException):
            raise BrokerError(f"expected an answer within {ANSWER_S:g} s, got none") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise BrokerError(f"expected an answer, got {error_text(error)}") from None

    def _headers(self) -> dict[str, str]:
        """Return the headers with the present token: a file with a new one needs no restart."""
        token = read_secret(self._settings.token_file, f"{self._place}.token_file")
        if not _TOKEN.fullmatch(token):
            raise ConfigError(f"{self._place}.token_file: expected an API token, got another text. Correct it.")
        return {"authorization": f"Bearer {token}", "accept": "application/json", "accept-encoding": "identity"}

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _closer() -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """Return a trace of one request that closes the connection if its TLS handshake fails.

    The client's own code leaves the connection open if the handshake is cancelled.
    """
    connected: list[Any] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(info["return_value"])
        elif event == "connection.start_tls.failed":
            await connected.pop().aclose()

    return trace


def _ok(status: int, body: bytes, name: str) -> bytes:
    if status == 200:
        return body
    advice = {401: " Is the token valid?", 403: " Has the token a role at that site?"}.get(status, "")
    # A proxy answers 502 for a console that is down: such a site is away, not rejected.
    kind = BrokerError if status >= 500 else MalformedError
    raise kind(f"{name}: expected status 200, got {status}.{advice}")


class SitePoller:
    """The sites of other consoles, each polled by a task of its own. For one event loop."""

    def __init__(
        self, settings: Mapping[str, SiteSettings], fleet: Fleet, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the clients. Raises ConfigError for a file that cannot be read."""
        self._fleet = fleet
        self._clock_s = clock_s
        self._answered_s = dict.fromkeys(settings, clock_s())
        self.clients = [SiteClient(name, each) for name, each in settings.items()]
        self._sites = {each.names.here: Site(each.names.here, each.names.url) for each in self.clients}
        fleet.show_sites(self._sites.values())

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for client in self.clients:
                    tasks.create_task(self._follow(client), name=f"site-{client.names.here}")
        finally:
            for client in self.clients:
                await client.close()

    async def _follow(self, client: SiteClient) -> None:
        while True:
            begun_s = time.monotonic()
            succeeded = await self._poll(client)
            took_s = time.monotonic() - begun_s
            await asyncio.sleep(max(POLL_S, _REST * took_s) if succeeded else POLL_S)

    async def _poll(self, client: SiteClient) -> bool:
        """Read one site and show it. Return whether it could be read."""
        name = client.names.here
        before = self._sites[name]
        try:
            now = without_duplicates(await client.read(), self._fleet.own_sites())
        except Exception as error:  # another machine's program: whatever it does stays its own problem
            problem = " ".join(str(error).split())[:300] or type(error).__name__
            now = replace(before, problem=problem, is_refused=not isinstance(error, BrokerError))
            if not now.is_away and self._clock_s() - self._answered_s[name] > AWAY_S:
                now = now.gone()
        else:
            self._answered_s[name] = self._clock_s()
        if now.problem and now.problem != before.problem:
            log.warning("site_not_read", site=name, error=now.problem)
        self._sites[name] = now
        self._fleet.show_sites(self._sites.values())
        return not now.problem
