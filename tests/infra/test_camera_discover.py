"""The command `pointillist camera discover`, with an ONVIF camera on loopback."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import typer
import yaml

from benchmarks.harness.rtsp import RtspServer
from infra.cameras import onvif
from infra.cameras.onvif import CameraDescription, ProbeMatch, Stream, camera_name
from infra.cli.camera_discover import _cameras_yaml, discover
from producers.fleet.camera_file import parse_camera_file
from producers.sources.login import has_login
from producers.sources.opening import open_source
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId
from tests.infra.command_line import refusal, run
from tests.infra.onvif_answerer import OnvifCamera

LOGIN = "viewer:pass-word"
pytestmark = [
    pytest.mark.xdist_group("ws-discovery"),  # the machine has one multicast group
    # The libraries raise them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _search_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library search on loopback, which it usually leaves out."""
    threaded = pytest.importorskip("wsdiscovery.threaded")
    here = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(threaded, "_getNetworkAddrs", lambda family: [here] if family == socket.AF_INET else [])


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with RtspServer(login=LOGIN) as server:
        yield server


@pytest.fixture
def login(tmp_path: Path) -> Path:
    file = tmp_path / "login"
    file.write_text(LOGIN)
    return file


def search(capsys: pytest.CaptureFixture[str], expected: int = 0, **options: object) -> tuple[int, str]:
    """Search for a second, and retry until the status is `expected`: a camera may answer late on a busy machine."""
    for _ in range(20):
        with pytest.raises(typer.Exit) as end:
            discover(seconds=1.0, **options)  # type: ignore[arg-type]  # the options have different types
        status, output = end.value.exit_code, capsys.readouterr().out
        if status == expected:
            break
    return status, output


def test_a_camera_is_found_and_the_printed_file_opens_its_stream(
    server: RtspServer, login: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with OnvifCamera(server.address("live", ""), LOGIN) as camera:
        status, output = search(capsys)
        assert status == 0
        assert f"{camera.address}  Front Gate, D7" in output
        assert not camera.requests  # without a login, only the probe is sent
        status, output = search(capsys, login=login)
        assert f"{camera.address}  Front Gate, Acme Dome 7" in output
        assert "Main stream: H264 64 x 48, up to 25 frames/s" in output
        assert server.address("live", "") in output
        status, output = search(capsys, login=login, site="yard", yaml=True)
        assert status == 0
        assert "pass-word" not in output
        [listed] = parse_camera_file(yaml.safe_load(output), Path("/etc"), "cameras.yaml").items()
        assert listed[0] == CameraId("yard/front-gate")
        source = open_source(listed[1].settings.source)
        captured = source.read()
        source.close()
        assert captured is not None
        assert captured.picture.shape == (48, 64, 3)


def test_a_camera_that_rejects_the_login_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").write_text("viewer:not-this")
    with OnvifCamera("rtsp://127.0.0.1/x", LOGIN) as camera:
        status, output = search(capsys, login=tmp_path / "other", json=True)
        [summary] = json.loads(output)
        assert (status, summary["address"], summary["streams"]) == (0, camera.address, [])
        assert "not authorized" in summary["problem"].lower()
        assert "not-this" not in output
        assert not set(camera.requests) - {"GetSystemDateAndTime"}
        status, output = search(capsys, 1, login=tmp_path / "other", host=["192.0.2.9"])
        assert status == 1


def test_no_camera_is_status_1_and_an_invalid_option_one_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, output = search(capsys, 1)
    assert status == 1
    assert "no camera has answered" in output
    with pytest.raises(ConfigError, match="--login is missing"):
        discover(yaml=True)
    with pytest.raises(ConfigError, match=r"--login: expected a file, which cameras\.yaml names, got standard input\."):
        discover(yaml=True, login=Path("-"))


@pytest.mark.parametrize(("line", "login"), [(LOGIN, ("viewer", "pass-word")), ("viewer", None), ("", None)])
def test_a_login_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, line: str, login: tuple[str, str] | None
) -> None:
    logins: list[tuple[str, ...]] = []

    async def describe(answers: list[ProbeMatch], *known: str) -> list[CameraDescription]:
        logins.append(known)
        return []

    monkeypatch.setattr(onvif, "probe_networks", lambda seconds: [])
    monkeypatch.setattr(onvif, "describe_all", describe)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\nmore\n"))
    if login is None:
        with pytest.raises(SecretError, match="login: expected user:password in one line, got another form"):
            discover(login=Path("-"))
    else:
        with pytest.raises(typer.Exit):
            discover(login=Path("-"))
        assert logins == [login]


def test_names_from_the_network_are_stripped_of_control_characters_and_made_valid() -> None:
    answer = ProbeMatch("10.0.0.1", 80, False, "Tür\x1b[2J/../x", "")
    assert onvif.seen("a\x1b[2J\u009bb\n" + "x" * 99) == "a[2Jb " + "x" * 74
    taken: set[str] = set()
    names = [camera_name(CameraDescription(answer), taken, "site") for _ in range(2)]
    assert names == ["t-r-2j-..-x", "t-r-2j-..-x-10-0-0-1-80"]


@pytest.mark.parametrize("site", ["main-building", "s" * 40])
@pytest.mark.parametrize("hosts", [("10.0.0.1", "10.0.0.2"), ("fd00:1111:2222:3333:4444:5555:6666:7771",
                                   "fd00:1111:2222:3333:4444:5555:6666:7772"), ("fe80::1", "fe80::2")])  # fmt: skip
def test_cameras_with_the_same_long_name_get_distinct_valid_names(site: str, hosts: tuple[str, ...]) -> None:
    stream = Stream("main", "rtsp://10.0.0.1/live")
    cameras = [
        CameraDescription(
            ProbeMatch(host, 65535, False, f"{'A very long name of a model of ' * 2}7", ""), streams=(stream,)
        )
        for host in ("192.0.2.1", *hosts)
    ]
    printed = yaml.safe_load(_cameras_yaml(cameras, site, Path("/etc/login")))
    assert len(parse_camera_file(printed, Path("/etc"), "cameras.yaml")) == 3


@pytest.mark.parametrize("site", ["Site A", "", "s" * 41, "a/b"])
def test_an_invalid_site_is_rejected_before_the_search(site: str) -> None:
    with pytest.raises(ConfigError, match=r"^site: expected a name of [^\n]*$"):
        discover(site=site)


class Service:
    """A service found by the library's search."""

    def __init__(self, scope: str, *addresses: str) -> None:
        self._scope, self._addresses = scope, addresses

    def getScopes(self) -> list[SimpleNamespace]:  # noqa: N802  # the library's name
        return [SimpleNamespace(getValue=lambda: self._scope)]

    def getXAddrs(self) -> tuple[str, ...]:  # noqa: N802  # the library's name
        return self._addresses


class StandInSearch:
    """A stand-in for the library's search, which finds `services` or raises `error`."""

    services: ClassVar[list[Service]] = []
    error: ClassVar[OSError | None] = None

    def __init__(self, **_: object) -> None:
        self.stopped = False

    def start(self) -> None:
        if self.error is not None:
            raise self.error

    def searchServices(self, **_: object) -> list[Service]:  # noqa: N802  # the library's name
        return self.services

    def stop(self) -> None:
        self.stopped = True


def test_only_http_addresses_of_cameras_count_as_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsdiscovery.discovery.ThreadedWSDiscovery", StandInSearch)
    name = "onvif://www.onvif.org/name/Front%20door"
    monkeypatch.setattr(
        StandInSearch,
        "services",
        [
            Service("ldap:///printer", "http://192.0.2.1/print"),
            Service(name, "ftp://192.0.2.2/", "http://", "http://a\u009b2Jb/", "https://192.0.2.4/onvif"),
            Service(name, "http://192.0.2.3:8080/onvif", "http://192.0.2.3/onvif"),
        ],
    )
    found = onvif.probe_networks(0.0)
    assert [(each.host, each.port, each.secure, each.name) for each in found] == [
        ("192.0.2.3", 8080, False, "Front door"),
        ("192.0.2.4", 443, True, "Front door"),
    ]
    assert [each.address for each in found[0].others] == ["192.0.2.3:80"]
    assert found[1].at(["192.0.2.3"]) is None


async def test_a_device_with_several_addresses_is_one_camera_at_the_first_address_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsdiscovery.discovery.ThreadedWSDiscovery", StandInSearch)
    with OnvifCamera("rtsp://127.0.0.1/x", LOGIN) as camera:
        places = ("http://[::1]:9/onvif", "https://127.0.0.1:9/onvif", f"http://{camera.address}/onvif")
        monkeypatch.setattr(StandInSearch, "services", [Service("onvif://www.onvif.org/name/Gate", *places)])
        [device] = onvif.probe_networks(0.0)
        [described] = await onvif.describe_all([device], *LOGIN.split(":"))
        assert (described.answer.address, described.problem) == (camera.address, "")
        assert [each.uri for each in described.streams] == ["rtsp://127.0.0.1/x"]
        asked = device.at(["::1"])
        assert asked is not None
        [described] = await onvif.describe_all([asked], *LOGIN.split(":"))
        assert (described.answer.address, described.streams) == ("[::1]:9", ())
        assert described.problem.startswith("Cannot connect to host")
        count = camera.rejected
        [described] = await onvif.describe_all([device], "viewer", "not-this")
        assert "not authorized" in described.problem.lower()
        assert camera.rejected > count


def test_a_network_without_multicast_is_one_error_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsdiscovery.discovery.ThreadedWSDiscovery", StandInSearch)
    monkeypatch.setattr(StandInSearch, "error", OSError(19, "No such device"))
    with pytest.raises(ConfigError, match=r"^network: expected one with multicast on UDP port 3702, got No such devi"):
        onvif.probe_networks(0.0)


def test_the_error_for_missing_libraries_names_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsdiscovery", None)
    line = refusal(run("camera", "discover", "--seconds", "0.1"))
    assert line.endswith("Install pointillist[onvif], or run `make setup-dev` in a checkout.")


async def test_a_camera_that_never_answers_is_named_with_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_answer(*_: object) -> CameraDescription:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(onvif, "ANSWER_S", 0.05)
    monkeypatch.setattr(onvif, "_ask", never_answer)
    (found,) = await onvif.describe_all([ProbeMatch("127.0.0.1", 9, False, "", "")], "", "")
    assert found.problem == "has not answered for 0.05 s"


@pytest.mark.parametrize(
    ("host", "secure", "url"),
    [
        ("192.0.2.9", False, "http://192.0.2.9:{}/"),
        ("192.0.2.9", True, "https://192.0.2.9:{}/"),
        ("2001:db8::9", False, "http://[2001:db8::9]:{}/"),
        ("2001:db8::9", True, "https://[2001:db8::9]:{}/"),
    ],
)
async def test_a_camera_is_queried_at_its_own_address(
    monkeypatch: pytest.MonkeyPatch, host: str, secure: bool, url: str
) -> None:
    client = pytest.importorskip("onvif")
    queried: list[str] = []

    async def update_xaddrs(camera: Any) -> None:
        queried.append(camera.get_definition("devicemgmt")[0])
        raise OSError("no route")

    monkeypatch.setattr(client.ONVIFCamera, "update_xaddrs", update_xaddrs)
    [described] = await onvif.describe_all([ProbeMatch(host, 8443, secure, "", "")], "viewer", "pass-word")
    assert described.problem == "no route"
    assert queried == [url.format(8443) + "onvif/device_service"]


def test_text_from_the_network_adds_no_entry_to_the_printed_file() -> None:
    for line_break in ("\n", "\r", "\x85", "\u2028", "\u2029"):
        problem = onvif.seen(f"away{line_break}cameras: [{{name: x}}]")
        cameras = [
            CameraDescription(
                ProbeMatch("10.0.0.1", 80, False, "gate", ""), streams=(Stream("main", "rtsp://10.0.0.1/live"),)
            ),
            CameraDescription(ProbeMatch("10.0.0.2", 80, False, "hall", ""), problem=problem),
        ]
        printed = yaml.safe_load(_cameras_yaml(cameras, "site", Path("/etc/login")))
        assert [each["name"] for each in printed["cameras"]] == ["gate"]


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://192.0.2.66/${HALL_LOGIN}",
        "rtsp://192.0.2.66/{index:02}",
        "rtsp://anna:word@192.0.2.66/live",
        "/etc/passwd",
        "file:///etc/passwd",
        "concat:rtsp://192.0.2.66/live",
        "rtsp://192.0.2.66/\n${HALL_LOGIN}",
        "x\ncameras: [{name: y}]",
    ],
)
def test_an_address_other_than_a_plain_stream_is_printed_as_a_comment(address: str) -> None:
    cameras = [
        CameraDescription(ProbeMatch("192.0.2.66", 80, False, "evil", ""), streams=(Stream("main", address),)),
        CameraDescription(
            ProbeMatch("192.0.2.7", 80, False, "gate", ""), streams=(Stream("main", "RTSPS://192.0.2.7/$1/{x}"),)
        ),
    ]
    printed = _cameras_yaml(cameras, "site", Path("/etc/login"))
    assert "\n# 192.0.2.66:80: expected rtsp://… or http://… without a login, ${ and {index, got " in printed
    listed = parse_camera_file(yaml.safe_load(printed), Path("/etc"), "cameras.yaml")
    assert list(listed) == ["site/gate"]


def test_only_listed_cameras_get_the_login() -> None:
    listed = CameraDescription(
        ProbeMatch("192.0.2.7", 80, False, "gate", ""), streams=(Stream("main", "rtsp://192.0.2.7/1"),)
    )
    printed = _cameras_yaml([listed, listed], "site", Path("/etc/login"))
    assert printed.startswith("# Each camera below gets the login. ")
    values = yaml.safe_load(printed)
    values["cameras"].append({"name": "added", "source": {"address": "rtsp://192.0.2.66/1"}})
    sources = [each.settings.source for each in parse_camera_file(values, Path("/etc"), "cameras.yaml").values()]
    assert [source.login and source.login.file for source in sources] == [Path("/etc/login")] * 2 + [None]


async def test_a_profile_without_a_stream_does_not_hide_the_others() -> None:
    def profile(token: str) -> SimpleNamespace:
        encoder = SimpleNamespace(Encoding="H264", Resolution=None, RateControl=SimpleNamespace(FrameRateLimit=None))
        return SimpleNamespace(token=token, Name=token, VideoEncoderConfiguration=encoder)

    class Device:
        def __init__(self, *tokens: str) -> None:
            self._profiles = [profile(token) for token in tokens]

        async def update_xaddrs(self) -> None: ...

        async def create_devicemgmt_service(self) -> Device:
            return self

        create_media_service = create_devicemgmt_service

        async def GetDeviceInformation(self) -> SimpleNamespace:  # noqa: N802  # the library's name
            return SimpleNamespace(Manufacturer="Acme", Model="7")

        async def GetProfiles(self) -> list[SimpleNamespace]:  # noqa: N802  # the library's name
            return self._profiles

        async def GetStreamUri(self, request: dict[str, str]) -> SimpleNamespace:  # noqa: N802  # the library's name
            if request["ProfileToken"] == "incomplete":
                raise ValueError("The profile has no source")
            return SimpleNamespace(Uri="rtsp://10.0.0.1/main")

    answer = ProbeMatch("10.0.0.1", 80, False, "", "")
    described = await onvif._ask(Device("incomplete", "main"), answer)
    assert described.streams == (Stream("main", "rtsp://10.0.0.1/main", "H264"),)
    with pytest.raises(ValueError, match="no source"):
        await onvif._ask(Device("incomplete"), answer)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("rtsp://anna:secret@h/s", True),
        ("rtsp://anna@h", True),
        ("rtsp://h/s?u=a@b", False),
        ("rtsp://h?u=a@b", False),
        ("rtsp://h#a@b", False),
        ("/dev/video0", False),
    ],
)
def test_only_the_authority_of_an_address_holds_a_login(address: str, found: bool) -> None:
    assert has_login(address) is found
