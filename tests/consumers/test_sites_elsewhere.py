"""Sites of other consoles: their cameras, alerts and audits next to the local ones."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from consumers.cameras.cache import CameraCache
from consumers.cameras.snapshots import Snapshots
from consumers.cameras.state import State
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.console.access.rights import Person, Right, Roles
from consumers.console.access.sight import Sight
from consumers.console.access.tokens import create_token
from consumers.console.access.users import write_user
from consumers.console.api.routes import card_json
from consumers.console.data import site_poller
from consumers.console.data.cards import Card
from consumers.console.data.fleet import Query
from consumers.console.data.site_documents import Names, SiteAlert, alerts_of, audit_of, cards_of
from consumers.console.data.site_poller import SiteClient, SitePoller
from consumers.console.data.sites import Site, audits_of, merge_cards, sum_lost, summed, visible, without_duplicates
from consumers.console.pages.alerts import ON_PAGE
from consumers.console.pages.fleet import Changes
from consumers.console.pages.system import balances
from consumers.console.settings import SiteSettings
from consumers.records.batch import frame_row
from infra.local.ports import free_port
from infra.pki.authority import Authority
from schemas.errors import BrokerError, ConfigError, MalformedError
from tests.consumers.console_rig import ConsoleRig, raise_alert
from tests.consumers.recorder_rig import BOOT, Rig, verdict
from tests.consumers.served_console import serving
from tests.waiting import PATIENCE_S, until

NAMES = Names("north", "local", "https://north.example/c")
AUDIT = {
    "frames_published": 9, "frames_recorded": 7, "frames_dead_lettered": 1, "frames_shed": 0, "frames_pending": 0,
    "frames_lost": 1, "frames_unread": 0, "as_of_ms": 5,
}  # fmt: skip
ALERT_ID = "a7" * 16


def sent_card(**changed: object) -> dict[str, Any]:
    """Return a card as a console's API sends it."""
    return card_json(Card("local/gate", State.ONLINE)) | changed


def page(*cards: dict[str, Any], pages: object = 1) -> bytes:
    return json.dumps({"cameras": cards, "pages": pages}).encode()


def site(name: str = "north", *cards: Card, **changed: Any) -> Site:
    fields = {"url": f"https://{name}.example", "cards": cards, "audit": AUDIT, "answered_ms": 5, "is_away": False}
    return Site(name, **{**fields, **changed})


def card(name: str, state: State = State.ONLINE, **changed: Any) -> Card:
    return Card(name, state, console=f"https://elsewhere.example/camera/{name}", **changed)


def test_a_remote_camera_gets_the_local_name_of_its_site_and_the_address_of_its_console() -> None:
    [found], pages = cards_of(
        page(sent_card(verdict="x" * 999, frames_per_second=2.5, picture=7, new_key=1), pages=7), NAMES
    )
    assert (found.name, found.console) == ("north/gate", "https://north.example/c/camera/local/gate")
    assert (found.state, found.frames_per_second, pages) == (State.ONLINE, 2.5, 7)
    assert len(found.verdict) == 300
    assert found.picture == 0


def test_cameras_that_a_console_shows_for_another_console_are_left_out() -> None:
    found, _ = cards_of(page(sent_card(console="https://far.example"), sent_card(name="local/door")), NAMES)
    assert [each.name for each in found] == ["north/door"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[" * 100_000, b"[]", b'{"cameras": 5, "pages": 1}', b"\xff\xfe",
        page(sent_card(name="other/gate")), page(sent_card(name="local/../x")),
        page(sent_card(name="local/gate?x=<b>")),
        page(sent_card(state="fine")), page(sent_card(confidence=2)), page(sent_card(frames_per_second=1e400)),
        page(sent_card(captured_ms=2**70)), page(sent_card(verdict="\ud800")), page(sent_card(alert="../../x")),
        page(sent_card(size=[1, 2])), page(pages=0), page(*(sent_card() for _ in range(501))),
    ],
)  # fmt: skip
def test_an_invalid_page_of_cameras_is_rejected_in_one_line(body: bytes) -> None:
    with pytest.raises(MalformedError) as raised:
        cards_of(body, NAMES)
    assert 10 < len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


def sent_alert(**changed: object) -> dict[str, object]:
    fields = {"alert_id": ALERT_ID, "camera": "local/gate", "kind": "strip", "raised_ms": 5, "checked": 8, "flagged": 7}
    return {**fields, "state": "open", "episode": ALERT_ID, **changed}


def test_the_newest_alert_of_each_episode_counts() -> None:
    listed = [
        sent_alert(),
        sent_alert(alert_id="b8" * 16, raised_ms=9),
        sent_alert(alert_id="c9" * 16, episode="c9" * 16),
    ]
    found = alerts_of(json.dumps(listed).encode(), NAMES)
    assert [(each.alert_id[:2], each.camera) for each in found] == [("b8", "north/gate"), ("c9", "north/gate")]
    assert found[0].url == f"https://north.example/c/alerts/{'b8' * 16}"


@pytest.mark.parametrize(
    "changed",
    [{"camera": "x"}, {"alert_id": "x/../y"}, {"state": "gone"}, {"raised_ms": -1}, {"kind": 5}],
)
def test_an_invalid_alert_is_rejected(changed: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        alerts_of(json.dumps([sent_alert(**changed)]).encode(), NAMES)


def test_alerts_of_other_sites_are_left_out() -> None:
    body = json.dumps([sent_alert(camera="elsewhere/b"), sent_alert()]).encode()
    assert [each.camera for each in alerts_of(body, NAMES)] == ["north/gate"]


def test_an_audit_is_its_counts_or_the_reason_without_them() -> None:
    assert audit_of(json.dumps(AUDIT | {"other": "x"}).encode()) == AUDIT
    assert audit_of(b'{"error": "no audit yet"}') == "no audit yet"
    for invalid in (b"{}", b"[]", json.dumps(AUDIT | {"frames_lost": -1}).encode()):
        with pytest.raises(MalformedError):
            audit_of(invalid)


def test_audits_of_a_console_with_two_sites_count_once() -> None:
    sites = [site("north"), site("south"), site("east", url="https://north.example/")]
    assert summed([AUDIT, *audits_of(sites)])["frames_published"] == 27
    assert sum_lost(sites) == 2
    assert sum_lost([*sites, site("west").gone()]) is None
    assert sum_lost([*sites, site("west", audit=None)]) is None


def test_the_balance_lists_each_system_and_their_sum() -> None:
    rows = balances(AUDIT, [site("north"), site("south", audit=None, no_audit="no right").gone()])
    assert [row["name"] for row in rows] == ["this console", "north", "south", "sum of 2 systems"]
    assert rows[-1]["frames_lost"] == 2
    assert rows[2]["note"] == "no right"
    assert rows[2]["away"]
    assert balances(AUDIT, []) == []


def test_a_camera_on_two_pages_counts_once_and_the_worst_state_comes_first() -> None:
    found = merge_cards([card("north/a2"), card("north/a10", State.OFFLINE), card("north/a2", frames=3)])
    assert [(each.name, each.frames) for each in found] == [("north/a10", 0), ("north/a2", 3)]


def test_a_site_with_the_name_of_a_local_site_is_rejected() -> None:
    found = without_duplicates(site("north", card("north/a")), {"north"})
    assert found.cards == ()
    assert found.state == "refused"
    assert found.problem == (
        "site: expected a name that no camera of this console has, got north. Rename it in the settings."
    )
    assert without_duplicates(site("north", card("north/a")), {"south"}).cards


def test_only_sites_of_the_users_roles_are_visible() -> None:
    sites = [site("north"), site("south")]
    assert [each.name for each in visible(sites, Sight(frozenset({"south"})))] == ["south"]
    assert len(visible(sites, Sight())) == 2


def test_the_fleet_is_sorted_searched_and_counted_over_all_consoles(bare_rig: ConsoleRig) -> None:
    bare_rig.show([verdict(0, class_name="cat")], "home/b")
    fleet = bare_rig.context.fleet
    fleet.show_sites([site("north", card("north/a", State.OFFLINE), card("north/c", verdict="cat"))])
    view = fleet.view(Query())
    assert [each.name for each in view.cards] == ["north/a", "home/b", "north/c"]
    assert (view.known, view.counts, view.sites) == (3, {"offline": 1, "online": 2}, ("home", "north"))
    assert [each.name for each in fleet.view(Query(text="cat")).cards] == ["home/b", "north/c"]
    assert [each.name for each in fleet.view(Query(site="north", state="offline")).cards] == ["north/a"]
    assert [each.name for each in fleet.own_cards()] == ["home/b"]
    assert fleet.card("north/a") is None


def test_an_unreachable_site_keeps_its_last_cards_with_the_time_of_the_last_answer(bare_rig: ConsoleRig) -> None:
    fleet, browser = bare_rig.context.fleet, bare_rig.browser()
    bare_rig.show([verdict(0)], "home/b")
    changes = Changes(bare_rig.context, Query())
    fleet.show_sites([site("north", card("north/a", frames_per_second=2.0))])
    changes()
    fleet.show_sites([site("north", card("north/a", frames_per_second=2.0), problem="<b>no</b> answer").gone()])
    pushed = changes()
    text = browser.get("/").text
    for shown in (pushed, text):
        assert 'class="card away warn gone"' in shown
        assert "away, last online" in shown
        assert 'is away: its console answered <time class="age" data-at="5"' in shown
        assert "&lt;b&gt;no&lt;/b&gt; answer" in shown
        assert "<b>no</b>" not in shown
    assert "1 fine, 1 away" in text
    assert "site north away" in text
    assert [each.name for each in fleet.view(Query(state="away")).cards] == ["north/a"]
    assert fleet.view(Query(state="online")).found == 1
    assert "last known" in browser.get("/system").text


def test_pages_link_to_the_console_of_the_site(bare_rig: ConsoleRig) -> None:
    alert = SiteAlert(ALERT_ID, "north/a", "<i>strip", 5, 8, 7, "open", "https://north.example/alerts/1")
    shown = card("north/a", State.ALERT, alert=ALERT_ID, detail="<i>x")
    bare_rig.context.fleet.show_sites([site("north", shown, alerts=(alert,), problem="<i>bad", is_refused=True)])
    browser = bare_rig.browser()
    fleet, alerts, system = (browser.get(path).text for path in ("/", "/alerts", "/system"))
    assert f'href="{shown.console}" rel="noreferrer"' in fleet
    assert 'href="https://north.example/alerts/1" rel="noreferrer"' in alerts
    assert "&lt;i&gt;strip" in alerts
    assert "&lt;i&gt;bad" in system
    assert "<i>" not in fleet + alerts + system
    assert "1 alert" in fleet
    redirect = browser.get("/camera/north/a")
    assert (redirect.status_code, redirect.headers["location"]) == (303, shown.console)
    fields = {"csrf": bare_rig.csrf(), "drop_ratio": "0.5"}
    assert "expected+one+of+this+fleet" in browser.post("/camera/north/a/command", data=fields).headers["location"]


def test_sightings_of_another_site_hide_no_other_alert(bare_rig: ConsoleRig) -> None:
    backdoor = SiteAlert(ALERT_ID, "north/a", "strip", 5, 8, 7, "open", "https://north.example/alerts/1")
    seen = [
        SiteAlert(ALERT_ID, "north/b", "sighting", at_ms, 0, 0, "open", "https://north.example/alerts/2", "person")
        for at_ms in range(6, 7 + ON_PAGE)
    ]
    bare_rig.context.fleet.show_sites([site("north", card("north/a"), alerts=(*seen, backdoor))])
    assert "https://north.example/alerts/1" in bare_rig.browser().get("/alerts").text


def test_a_user_sees_only_the_sites_of_assigned_roles(tmp_path: Path) -> None:
    write_user(tmp_path / "users", "root", Right.ADMIN, "a long password")
    rig = ConsoleRig(tmp_path, users=tmp_path / "users")
    alerts = [
        SiteAlert(ALERT_ID, f"{name}/a", "strip", 5, 8, 7, "open", "https://x.example") for name in ("north", "south")
    ]
    rig.context.fleet.show_sites(
        [
            site(each.camera[:5], card(each.camera), alerts=(each,), problem="late", audit={"frames_lost": 1}).gone()
            for each in alerts
        ]
    )
    try:
        for roles, mine in (("north=viewer", {"north"}), ("viewer", {"north", "south"}), ("home=admin", set())):
            token = rig.context.sessions.begin(Person("eve", Roles.parse(roles)))
            browser = rig.visitor()
            browser.cookies.set("pointillist", token, domain="127.0.0.1", path="/")
            for path in ("/", "/alerts", "/api/v1/cameras", "/api/v1/sites"):
                text = browser.get(path).text
                assert {name for name in ("north", "south") if name in text} == mine, (roles, path)
            audits = [each["audit"] for each in browser.get("/api/v1/sites").json()]
            assert any(audits) == (roles == "viewer")  # an audit counts all sites of a system
            assert browser.get("/camera/south/a").status_code == (303 if "south" in mine else 404)
    finally:
        rig.close()


@pytest.fixture
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll interval and the timeouts."""
    monkeypatch.setattr(site_poller, "POLL_S", 0.02)
    monkeypatch.setattr(site_poller, "ANSWER_S", 5.0)
    monkeypatch.setattr(site_poller, "AWAY_S", 3.0)


def save_cameras(recorder: Rig, *cameras: str) -> None:
    """Save snapshots of these cameras as the recorder does, each with one frame."""
    now_ms = time.time_ns() // 10**6
    cache = CameraCache(recorder.settings)
    cache.apply_transaction(
        TransactionEffect(rows=[frame_row((name, BOOT, 0), verdict(0), now_ms) for name in cameras])
    )
    Snapshots(recorder.engine, 0).save(cache.all(), now_ms)


def new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def site_settings(folder: Path, port: int, token: str = "x") -> SiteSettings:
    file = folder / f"{port}.token"
    file.write_text(token)
    return SiteSettings(url=f"http://127.0.0.1:{port}", token_file=file)


@contextlib.asynccontextmanager
async def polling(rig: ConsoleRig, **sites: SiteSettings) -> AsyncIterator[SitePoller]:
    poller = SitePoller(sites, rig.context.fleet)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def states(rig: ConsoleRig) -> dict[str, str]:
    return {each.name: each.state for each in rig.context.fleet.sites()}


async def test_two_consoles_form_one_fleet_and_a_stopped_one_is_away(
    bare_rig: ConsoleRig, tmp_path: Path, recorder: Rig, fast_polls: None
) -> None:
    save_cameras(recorder, "north/gate", "south/door")
    raise_alert(recorder, ALERT_ID, "north/gate")
    tokens = tmp_path / "tokens"
    north, south = (create_token(tokens, f"{each}", f"{each}=viewer", 1, "root", 4e9) for each in ("north", "south"))
    changed: dict[str, Any] = {"tokens": tokens, "database": recorder.url}
    fleet = bare_rig.context.fleet
    async with (
        serving(new_folder(tmp_path / "n"), **changed) as (port, _),
        contextlib.AsyncExitStack() as stack,
    ):
        other, _ = await stack.enter_async_context(serving(new_folder(tmp_path / "s"), **changed))
        sites = {"north": site_settings(tmp_path, port, north), "south": site_settings(tmp_path, other, south)}
        async with polling(bare_rig, **sites):
            await until(lambda: [each.name for each in fleet.cards()] == ["north/gate", "south/door"])
            await until(lambda: states(bare_rig) == {"north": "up", "south": "up"})
            assert [each.alert_id for each in fleet.sites()[0].alerts] == [ALERT_ID]
            assert fleet.sites()[0].no_audit == site_poller.NO_RIGHT
            await stack.aclose()
            await until(lambda: states(bare_rig) == {"north": "up", "south": "away"})
            away = fleet.sites()[1]
            assert [each.is_away for each in away.cards] == [True]
            assert away.answered_ms
            assert away.problem
            before = fleet.sites()[0].answered_ms
            await until(lambda: fleet.sites()[0].answered_ms > before, "another answer of the other console")
            assert [each.name for each in fleet.view(Query(state="away")).cards] == ["south/door"]


@contextlib.asynccontextmanager
async def serve_reply(reply: bytes, *, ends: bool = True) -> AsyncIterator[int]:
    """Serve the same bytes to each client. Yield the port."""
    connections: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            if ends:
                writer.close()

    port = free_port()
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield port
    finally:
        for writer in connections:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (OK + b"\r\nhello", "cameras: expected the API of a console"),
        (OK + b"\r\n" + b" " * (site_poller.LARGEST + 1), "expected at most 2097152 bytes"),
        (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b", "cameras: expected the API of a console"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "expected status 200, got 302"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "got 401. Is the token valid?"),
        (b"HTTP/1.1 500 <b>\r\nContent-Length: 0\r\n\r\n", "expected status 200, got 500"),
        (b"nonsense\r\n\r\n", "expected an answer"),
        (OK + b"Content-Length: 5\r\n\r\nx", "expected an answer"),
    ],
)
async def test_a_broken_or_hostile_console_is_reported_in_one_line(
    bare_rig: ConsoleRig, tmp_path: Path, fast_polls: None, reply: bytes, problem: str
) -> None:
    bare_rig.show([verdict(0)], "home/b")
    async with serve_reply(reply) as port, polling(bare_rig, north=site_settings(tmp_path, port)):
        await until(lambda: problem in bare_rig.context.fleet.sites()[0].problem, problem)
        [line] = [each.problem for each in bare_rig.context.fleet.sites()]
        assert len(line) <= 300
        assert "\n" not in line
    browser = bare_rig.browser()
    for path in ("/", "/alerts", "/system", "/system/conservation", "/api/v1/sites", "/api/v1/cameras"):
        assert browser.get(path).status_code == 200
    assert problem in browser.get("/api/v1/sites").json()[0]["problem"]


async def test_a_hanging_console_delays_neither_pages_nor_the_other_site(
    bare_rig: ConsoleRig, tmp_path: Path, recorder: Rig, fast_polls: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_poller, "ANSWER_S", 1.0)
    save_cameras(recorder, "north/gate")
    tokens = tmp_path / "tokens"
    token = create_token(tokens, "link", "viewer", 1, "root", 4e9)
    async with (
        serving(new_folder(tmp_path / "n"), tokens=tokens, database=recorder.url) as (port, _),
        serve_reply(b"", ends=False) as hung,
        polling(bare_rig, north=site_settings(tmp_path, port, token), south=site_settings(tmp_path, hung)),
    ):
        await until(lambda: [each.name for each in bare_rig.context.fleet.cards()] == ["north/gate"])
        assert states(bare_rig) == {"north": "up", "south": "away"}
        await until(lambda: "within 1 s" in bare_rig.context.fleet.sites()[1].problem)
        assert "not finished an audit" in bare_rig.context.fleet.sites()[0].no_audit


async def test_a_new_token_in_the_file_is_used_and_an_invalid_one_reported_without_its_text(
    bare_rig: ConsoleRig, tmp_path: Path, recorder: Rig, fast_polls: None
) -> None:
    tokens = tmp_path / "tokens"
    token = create_token(tokens, "link", "viewer", 1, "root", 4e9)
    async with serving(new_folder(tmp_path / "n"), tokens=tokens, database=recorder.url) as (port, _):
        settings = site_settings(tmp_path, port, "wrong-token")
        async with polling(bare_rig, north=settings):
            await until(lambda: "401" in bare_rig.context.fleet.sites()[0].problem)
            settings.token_file.write_text("two words\nsecret-word")
            await until(lambda: "another text" in bare_rig.context.fleet.sites()[0].problem)
            assert "secret-word" not in bare_rig.context.fleet.sites()[0].problem
            settings.token_file.write_text(token)
            await until(lambda: states(bare_rig) == {"north": "up"})


async def test_a_console_at_an_https_address_needs_a_certificate_of_the_configured_authorities(
    bare_rig: ConsoleRig, tmp_path: Path, recorder: Rig, fast_polls: None
) -> None:
    authority = Authority.create(tmp_path / "pki")
    issued = authority.issue("console", hosts=["127.0.0.1"])
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "tls.crt").write_text(issued.certificate)
    (tmp_path / "tls" / "tls.key").write_text(issued.key)
    (tmp_path / "ca.crt").write_text(authority.pem)
    tokens = tmp_path / "tokens"
    token = create_token(tokens, "link", "viewer", 1, "root", 4e9)
    changed: dict[str, Any] = {"tokens": tokens, "database": recorder.url, "http_tls": tmp_path / "tls"}
    async with serving(new_folder(tmp_path / "n"), **changed) as (port, _):
        own = site_settings(tmp_path, port, token).model_copy(update={"url": f"https://127.0.0.1:{port}"})
        trusted = own.model_copy(update={"ca_file": tmp_path / "ca.crt"})
        async with polling(bare_rig, north=trusted, south=own):
            await until(lambda: states(bare_rig) == {"north": "up", "south": "away"})
            await until(lambda: "certificate verify failed" in bare_rig.context.fleet.sites()[1].problem)


async def test_a_connection_whose_handshake_never_ends_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_poller, "ANSWER_S", 0.3)
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read(-1))
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = site_settings(tmp_path, port).model_copy(update={"url": f"https://127.0.0.1:{port}"})
    client = SiteClient("north", settings)
    gc.disable()  # garbage collection would close a leaked connection
    try:
        with pytest.raises(BrokerError, match="got none"):
            await client.read()
        async with asyncio.timeout(PATIENCE_S):
            assert await received
    finally:
        gc.enable()
        await client.close()
        server.close()
        await server.wait_closed()


def test_unreadable_files_are_rejected_at_the_start(bare_rig: ConsoleRig, tmp_path: Path) -> None:
    missing = SiteSettings(url="https://x.example", token_file=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"sites\.north\.token_file: expected a readable file"):
        SitePoller({"north": missing}, bare_rig.context.fleet)
    unreadable = site_settings(tmp_path, 1).model_copy(update={"ca_file": tmp_path / "none"})
    with pytest.raises(ConfigError, match=r"sites\.north\.ca_file"):
        SitePoller({"north": unreadable}, bare_rig.context.fleet)


def test_the_api_returns_cameras_in_pages_of_a_bounded_size(bare_rig: ConsoleRig) -> None:
    for name in ("a", "b", "c"):
        bare_rig.show([verdict(0)], f"home/{name}")
    browser = bare_rig.browser()
    found = browser.get("/api/v1/cameras?site=home&cards=2&page=2").json()
    assert [each["name"] for each in found["cameras"]] == ["home/c"]
    assert found["pages"] == 2
    for invalid in ("501", "-1", "x", "9999999"):
        assert browser.get(f"/api/v1/cameras?cards={invalid}").status_code == 400


@pytest.mark.parametrize("is_older", [False, True], ids=["this release", "an older release"])
async def test_a_camera_whose_state_changes_between_two_pages_is_read_by_a_console_of_this_release(
    bare_rig: ConsoleRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_older: bool
) -> None:
    monkeypatch.setattr(site_poller, "PAGE_CARDS", 2)
    for name in ("a", "b", "c", "d"):
        bare_rig.show([verdict(0)], f"home/{name}")
    browser, client = bare_rig.browser(), SiteClient("home", site_settings(tmp_path, 1))

    async def get(name: str, query: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        if name != "cameras":  # this console has no database
            return (200, b"[]") if name == "alerts" else (403, b"")
        known = {key: value for key, value in (query or {}).items() if not (is_older and key == "order")}
        answer = browser.get(f"/api/v1/{name}", params=known)
        bare_rig.context.fleet.set_alerts({"home/d": [ALERT_ID]})
        bare_rig.tick()
        return answer.status_code, answer.content

    monkeypatch.setattr(client, "_get", get)
    found = await client.read()
    await client.close()
    names = [each.name for each in found.cards]
    assert names == (["home/a", "home/b", "home/c"] if is_older else ["home/d", "home/a", "home/b", "home/c"])
