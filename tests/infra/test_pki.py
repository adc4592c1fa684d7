"""The fleet's authority, enrolments and the commands that create them, without brokers."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from consumers.console.data.store import Store
from infra.admission.camera_revocation import revoke
from infra.cameras.identity import issued_identity
from infra.cli.access import kafka_place
from infra.pki import authority as authorities
from infra.pki import generations
from infra.pki.authority import LOCAL_HOSTS, Authority, certificate_hosts, general_name, good_for
from infra.pki.enrolment import Enrolment, enroll, renew_enrolment
from infra.pki.generations import following
from infra.pki.refusals import refuse, refused
from infra.pki.roles import SERVERS, Roles, rights_file, role_folder, role_tls, share_name
from infra.pki.serials import serials
from infra.state_folder import Layout, passphrase
from infra.up.identities import prepare_identities
from infra.up.settings import UpSettings
from schemas.errors import ConfigError, RevokedKeyError, SecretError, StateError
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.runtime.json_files import write_json
from schemas.transport.access import KafkaAccess, Login, Tls, server_context
from tests.consumers.console_rig import OWNER
from tests.infra.command_line import refusal, run
from tests.infra.secure import SECRET, enroll_camera, make_fleet
from tests.waiting import until

DOOR = CameraId("site/door")


def test_only_the_owner_can_read_secret_files(fleet: Layout) -> None:
    enroll_camera(fleet, DOOR)
    share_name(fleet.pki)
    Roles(Authority(fleet.pki)).write_rights()
    keys = [
        fleet.pki / "ca.key",
        fleet.enrolment(DOOR),
        fleet.pki / "bridges.share",
        *fleet.pki.glob("roles/*/tls.key"),
        fleet.pki / "roles" / "kafka" / "keystore.pem",
        fleet.pki / "roles" / "bridge" / "bridges.share",
    ]
    assert len(keys) > 8
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys} == {0o600}
    public = [path for path in fleet.pki.rglob("*") if path.is_file() and path not in keys]
    assert not [path for path in public if "PRIVATE" in path.read_text()]


def test_a_camera_s_certificate_is_for_clients_and_no_role_has_a_camera_s_name(fleet: Layout) -> None:
    enroll_camera(fleet, DOOR)
    own = x509.load_pem_x509_certificates(fleet.enrolment(DOOR).read_bytes())[0]
    uses = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use._name for use in uses] == ["clientAuth"]
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(ConfigError, match="role: expected one of mosquitto, kafka, postgresql, pages, bridge"):
        Roles(Authority(fleet.pki)).issue("site/door", LOCAL_HOSTS)


def test_an_existing_authority_is_not_overwritten(fleet: Layout) -> None:
    before = (fleet.pki / "ca.crt").read_text()
    with pytest.raises(StateError, match="got an existing one, whose certificates would become worthless"):
        Authority.create(fleet.pki)
    assert (fleet.pki / "ca.crt").read_text() == before


def test_valid_certificates_are_kept_and_others_are_issued_again(fleet: Layout) -> None:
    roles = Roles(Authority(fleet.pki))
    kept = (roles.folder("bridge") / "tls.crt").read_text()
    server = (roles.folder("mosquitto") / "tls.crt").read_text()
    roles.ensure(("bridge", "mosquitto"), LOCAL_HOSTS)
    assert ((roles.folder("bridge") / "tls.crt").read_text(), (roles.folder("mosquitto") / "tls.crt").read_text()) == (
        kept,
        server,
    )
    roles.ensure(("bridge", "mosquitto"), (*LOCAL_HOSTS, "broker.example"))
    assert (roles.folder("bridge") / "tls.crt").read_text() == kept
    found = x509.load_pem_x509_certificate((roles.folder("mosquitto") / "tls.crt").read_bytes())
    assert good_for(found, ("broker.example", "127.0.0.1"), 30)
    assert not good_for(found, ("broker.example",), 10_000)


def test_each_revocation_list_is_newer_than_the_last_and_valid_now(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "pki")
    times = []
    for serial in range(1, 5):
        authority.revoke({serial: DOOR})
        found = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
        assert {each.serial_number for each in found} == set(range(1, serial + 1))
        times.append(found.last_update_utc)
    assert times == sorted(set(times))
    assert times[-1] < datetime.datetime.now(datetime.UTC)


def test_a_revocation_list_is_valid_now_even_after_one_dated_in_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.create(tmp_path / "pki")
    monkeypatch.setattr("infra.pki.authority._CRL_BACKDATED", -datetime.timedelta(days=1))
    authority.revoke({1: DOOR})
    monkeypatch.undo()
    authority.revoke({2: DOOR})
    found = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
    assert {each.serial_number for each in found} == {1, 2}
    assert found.last_update_utc < datetime.datetime.now(datetime.UTC)


def test_the_longest_camera_name_is_enrolled_and_a_longer_one_is_one_error_line(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("ca", "init", "--state", state).exit_code == 0
    longest = f"{'s' * 32}/{'c' * 31}"
    assert run("enroll", longest, "--out", tmp_path / "longest", "--state", state).exit_code == 0
    assert Enrolment.read(tmp_path / "longest").camera == longest
    for name in (f"{'s' * 63}/{'c' * 63}", f"{longest}c", f"site/{'c' * 60}"):
        line = refusal(run("enroll", name, "--out", tmp_path / "out", "--state", state))
        assert line.startswith("camera: expected site/camera of a-z 0-9 _ . -, at most 64 characters in all, got ")
    assert not (tmp_path / "out").exists()


def test_a_name_without_a_site_is_a_camera_of_the_site_local(fleet: Layout, tmp_path: Path) -> None:
    fleet.fleet_secret()
    out = ("--out", tmp_path / "hall")
    for command in (("enroll", "hall", *out), ("rotate", "hall", *out), ("revoke", "hall")):
        assert run(*command, "--state", fleet.folder).exit_code == 0
    assert Enrolment.read(tmp_path / "hall").camera == "local/hall"
    assert fleet.accepted_generations()["local/hall"] == 2


def _first_block(text: str) -> str:
    begin, end = text.index("-----BEGIN"), "-----END CERTIFICATE-----\n"
    return text[begin : text.index(end) + len(end)]


def _nameless() -> str:
    """Return a certificate whose subject has no common name."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "expected an enrolment written by `pointillist enroll`"),
        (lambda text: text.replace("camera: site/door", "camera: site/yard"), "expected a certificate of site/yard"),
        (
            lambda text: text.replace("BEGIN CERTIFICATE-----\nMI", "BEGIN CERTIFICATE-----\nXX"),
            "expected an enrolment, got damaged certificates",
        ),
        (lambda text: text.replace(_first_block(text), _nameless()), "expected an enrolment, got damaged certificates"),
        (lambda text: text[: text.rindex("-----BEGIN")], "and its authority's, got others"),
        (lambda text: text.replace("camera: site/door\n", ""), "expected an enrolment"),
    ],
)
def test_a_damaged_enrolment_is_rejected_with_its_cause(
    fleet: Layout, tmp_path: Path, change: object, words: str
) -> None:
    assert callable(change)
    enroll(Authority(fleet.pki), derive_camera_key(SECRET, DOOR), tmp_path / "file")
    (tmp_path / "file").write_text(change((tmp_path / "file").read_text()))
    with pytest.raises(ConfigError, match=words):
        Enrolment.read(tmp_path / "file")


def test_an_expired_enrolment_and_another_name_are_rejected_by_the_command(fleet: Layout, tmp_path: Path) -> None:
    enroll(Authority(fleet.pki), derive_camera_key(SECRET, DOOR), tmp_path / "ended", "127.0.0.1:1", days=-0.5)
    line = refusal(run("camera", "attach", "/dev/null", "--enrolment", tmp_path / "ended"))
    assert "expected a valid enrolment of site/door, got one that ended at" in line
    enroll(Authority(fleet.pki), derive_camera_key(SECRET, DOOR), tmp_path / "door", "127.0.0.1:1")
    line = refusal(run("camera", "attach", "/dev/null", "--enrolment", tmp_path / "door", "--name", "site/yard"))
    assert line.startswith("--name: expected site/door")


def test_the_commands_create_a_fleet_enrol_a_camera_and_revoke_it(tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "door.enrolment"
    assert run("ca", "init", "--state", state, "--host", "broker.example").exit_code == 0
    assert refusal(run("ca", "init", "--state", state)).endswith(f"`pointillist ca init --keep --state {state}`.")
    assert run("ca", "role", "bridge-7", "--state", state).exit_code == 0
    assert "user bridge-7" in rights_file(state / "pki").read_text()
    done = run("enroll", DOOR, "--out", out, "--mqtt", "broker.example:8883", "--state", state)
    assert (done.exit_code, done.output) == (0, "")
    before = Enrolment.read(out)
    done = run("enroll", "site/hall", "--out", tmp_path / "hall", "--state", state)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(f"{tmp_path / 'hall'}: the broker address is missing. Give --mqtt HOST:PORT")
    assert "-: expected the name of a file" in refusal(run("enroll", "site/hall", "--out", "-", "--state", state))
    done = run("revoke", DOOR, "--state", state)
    assert done.output.startswith("site/door: 1 certificates revoked, keys accepted from generation 1 on")
    assert refused(state / "pki") == {DOOR}
    assert run("enroll", DOOR, "--out", out, "--mqtt", "broker.example:8883", "--state", state).exit_code == 0
    after = Enrolment.read(out)
    assert (before.key.generation, after.key.generation) == (0, 1)
    assert refused(state / "pki") == set()


def test_a_scenario_issues_an_accepted_key_to_a_camera_that_was_enrolled_again(tmp_path: Path) -> None:
    state, scenario, out = tmp_path / "state", tmp_path / "scenario.yaml", tmp_path / "door.enrolment"
    scenario.write_text("site: site\ncameras:\n- {name: door, source: {kind: scene}}\n")
    layout = Layout(state)
    assert run("ca", "init", "--state", state).exit_code == 0
    for command in (("enroll", DOOR, "--out", out), ("revoke", DOOR), ("enroll", DOOR, "--out", out)):
        assert run(*command, "--state", state).exit_code == 0
    assert run("ca", "init", "--keep", "--state", state, "--scenario", scenario).exit_code == 0
    assert layout.camera_key(DOOR).generation == Enrolment.read(layout.enrolment(DOOR)).key.generation == 1


def test_an_enrolment_after_a_revocation_replaces_the_key_in_the_state_folder(tmp_path: Path) -> None:
    state, scenario, out = tmp_path / "state", tmp_path / "scenario.yaml", tmp_path / "door.enrolment"
    scenario.write_text("site: site\ncameras:\n- {name: door, source: {kind: scene}}\n")
    layout = Layout(state)
    assert run("ca", "init", "--state", state, "--scenario", scenario).exit_code == 0
    assert run("revoke", DOOR, "--state", state).exit_code == 0
    assert layout.camera_key(DOOR).generation == 0
    assert run("enroll", DOOR, "--out", out, "--state", state).exit_code == 0
    assert layout.camera_key(DOOR).generation == Enrolment.read(out).key.generation == 1


def test_enrolments_revocations_and_rotations_are_in_the_audit_log(fleet: Layout, tmp_path: Path) -> None:
    fleet.fleet_secret()
    enroll_camera(fleet, DOOR)
    options = ("--state", fleet.folder)
    assert run("revoke", DOOR, *options).exit_code == 0
    assert run("rotate", DOOR, "--out", tmp_path / "door", "--mqtt", "broker.example:8883", *options).exit_code == 0
    assert run("revoke", "--role", "bridge", *options).exit_code == 0
    assert run("enroll", DOOR, "--out", tmp_path / "door", "--mqtt", "broker.example:8883", *options).exit_code == 0
    noted = [(line.who, line.what, line.subject, line.outcome) for line in Store(fleet.console_url).newest_operations()]
    assert noted[:4] == [
        (OWNER, "enroll", DOOR, "done"),
        (OWNER, "revoke", "bridge", "done"),
        (OWNER, "rotate", DOOR, "done"),
        (OWNER, "revoke", DOOR, "done"),
    ]


def test_keys_certificates_and_backups_are_in_the_audit_log_if_it_exists(tmp_path: Path) -> None:
    layout, fresh = Layout(tmp_path / "state"), Layout(tmp_path / "fresh")

    def run_all() -> None:
        for words in (
            ("ca", "init", "--keep", "--days", "30"),
            ("ca", "role", "bridge-2", "--days", "300"),
            ("ca", "renew", "--days", "1"),
            ("key", DOOR),
            ("key", "--role", "bridge", "--out", tmp_path / "bridge"),
            ("key", "--roles", tmp_path / "roles"),
            ("backup", "--to", tmp_path / "backups"),
        ):
            done = run(*words, "--state", layout.folder)
            assert done.exit_code == 0, done.output
        assert "warning" not in done.stderr

    run_all()
    assert not layout.console_database.exists()
    shutil.rmtree(tmp_path / "backups")
    store = Store(layout.console_url)
    store.prepare()
    run_all()
    assert run("restore", "--from", tmp_path / "backups", "--state", fresh.folder).exit_code == 0
    store.close()
    noted = [(line.what, line.subject, line.outcome) for line in Store(fresh.console_url).newest_operations()]
    noted += [(line.what, line.subject, line.outcome) for line in Store(layout.console_url).newest_operations()][:1]
    assert noted == [
        ("restore", "state folder", "done"),
        ("key", "roles", "written"),
        ("key", "bridge", f"in {tmp_path / 'bridge'}"),
        ("key", DOOR, "printed"),
        ("ca renew", "roles", "renewed"),
        ("ca role", "bridge-2", "issued"),
        ("ca init", "authority", "kept"),
        ("backup", "state folder", "done"),
    ]


def test_lines_of_commands_are_in_the_console_s_database_that_a_setting_of_up_names(tmp_path: Path) -> None:
    layout, own = Layout(tmp_path / "state"), tmp_path / "own.sqlite"
    layout.fleet_secret()
    write_json(layout.run, {"options": {"console": {"store": f"sqlite:///{own}"}}})
    assert run("key", DOOR, "--state", layout.folder).exit_code == 0
    assert not own.exists()
    with Store.opened(f"sqlite:///{own}") as store:
        assert run("key", DOOR, "--state", layout.folder).exit_code == 0
        assert [line.what for line in store.newest_operations()] == ["key"]
    assert not layout.console_database.exists()
    write_json(layout.run, {"options": {"console": {"store": "env:POINTILLIST_OWN"}}})
    done = run("key", DOOR, "--state", layout.folder)
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: audit log: expected a new line on this change, got the console's database")


def test_missing_or_mismatched_files_for_tls_are_named(fleet: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca.crt: expected the authority's certificate, got No such file"):
        Tls.of_folder(tmp_path)
    roles = fleet.pki / "roles"
    mixed = Tls(Authority(fleet.pki).pem, roles / "bridge" / "tls.crt", roles / "admin" / "tls.key")
    with pytest.raises(ConfigError, match="do not belong together"):
        mixed.context()
    with pytest.raises(ConfigError, match="not in PEM"):
        server_context(fleet.pki / "revoked.json", fleet.pki / "revoked.json")
    with pytest.raises(ConfigError, match="authorities: expected certificates in PEM"):
        Tls("nothing").context()
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(ConfigError, match=r"/ca.crt: expected certificates in PEM"):
        Tls.of_folder(tmp_path)
    with pytest.raises(StateError, match=rf"Run `pointillist ca role bridge-9 --state {fleet.folder}`"):
        role_tls(fleet.pki, "bridge-9")


def test_tls_contexts_always_verify_host_names(fleet: Layout) -> None:
    for tls in (role_tls(fleet.pki, "bridge"), Tls(None)):
        context = tls.context()
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_a_password_is_never_printed_and_never_sent_without_tls(tmp_path: Path) -> None:
    login = Login.parse("recorder:hunter2:x\n")
    assert login.password.get_secret_value() == "hunter2:x"
    assert "hunter2" not in f"{login!r} {KafkaAccess('a:1', Tls(None), login)!r}"
    for text in ("", "hunter2", "user:", ":hunter2"):
        with pytest.raises(SecretError) as caught:
            Login.parse(text)
        assert "hunter2" not in str(caught.value)
    (tmp_path / "login").write_text("recorder:hunter2")
    with pytest.raises(ConfigError, match="kafka_tls is missing: a password is sent to Kafka only by TLS"):
        kafka_place("127.0.0.1:1", None, "recorder", login=tmp_path / "login")


async def test_a_key_of_a_revoked_generation_is_rejected_while_a_role_runs(tmp_path: Path) -> None:
    file, keys = tmp_path / "generations.json", KeyRing(SECRET)
    write_json(file, {})
    assert keys.key(DOOR, 0).generation == 0
    done = asyncio.Event()

    async def work() -> str:
        await done.wait()
        return "worked"

    def revoked() -> bool:
        try:
            keys.key(DOOR, 0)
        except RevokedKeyError:
            return True
        return False

    role = asyncio.create_task(following(file, keys, work()))
    write_json(file, {DOOR: 1})
    await until(revoked)
    assert keys.current(DOOR).generation == 1
    file.write_text("{damaged")
    write_json(file.with_name("other"), {})
    await asyncio.sleep(0)
    assert revoked()
    write_json(file, {DOOR: 1, "site/yard": 2})
    await until(lambda: keys.current(CameraId("site/yard")).generation == 2)
    done.set()
    assert await role == "worked"


def copy_authority(fleet: Layout, to: Path) -> Path:
    """Copy the files of the authority to a new folder and return it."""
    to.mkdir()
    for name in ("ca.crt", "ca.key", "crl.pem"):
        (to / name).write_bytes((fleet.pki / name).read_bytes())
    return to


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ca.crt", "{", r"expected ca\.crt and ca\.key in PEM, got another form\. Restore the files\."),
        *(
            ("revoked.json", text, r"revoked\.json: expected JSON, got another form\. Restore the file\.")
            for text in ("{", "[]", '{"no number": "door"}')
        ),
    ],
)
def test_a_damaged_file_of_the_authority_is_one_error_line(
    fleet: Layout, tmp_path: Path, name: str, text: str, message: str
) -> None:
    folder = copy_authority(fleet, tmp_path / "pki")
    (folder / name).write_text(text)
    with pytest.raises(StateError, match=message):
        Authority(folder).revoked()


def test_a_cut_line_of_serial_numbers_is_reported_before_anything_is_revoked(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    enroll_camera(fleet, DOOR)
    file = fleet.pki / "cameras" / f"{DOOR}.serials"
    number = file.read_text().strip()
    file.write_text(f"{number[:7]}{number}\n")
    with pytest.raises(StateError, match=r"\.serials: expected a hexadecimal number of less than 160 bits"):
        revoke(fleet, DOOR)
    assert fleet.accepted_generations().get(DOOR, 0) == 0
    file.write_text(f"{number}")  # without its line break
    enroll_camera(fleet, DOOR)
    assert len(serials(fleet.pki, DOOR)) == 2


def test_a_damaged_list_of_revoked_certificates_is_reported_before_anything_is_revoked(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    enroll_camera(fleet, DOOR)
    (fleet.pki / "revoked.json").write_text("[]")
    with pytest.raises(StateError, match=r"revoked\.json: expected JSON"):
        revoke(fleet, DOOR)
    assert fleet.accepted_generations().get(DOOR, 0) == 0


def test_a_list_that_lacks_a_revoked_camera_after_it_was_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    enroll_camera(fleet, DOOR)
    monkeypatch.setattr(Authority, "revoke", lambda *_: None)
    with pytest.raises(StateError, match=r"revoked\.json: expected site/door as revoked"):
        revoke(fleet, DOOR)


@pytest.mark.parametrize("name", ["fleet.secret", "pki/refused", "pki/bridges.share", "pki/cameras/site/door.serials"])
def test_a_flipped_bit_in_a_file_of_identities_is_one_error_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    fleet.fleet_secret()
    enroll_camera(fleet, DOOR)
    refuse(fleet.pki, [DOOR])
    share_name(fleet.pki)
    file = fleet.folder / name
    first, *rest = file.read_bytes()
    file.write_bytes(bytes([first ^ 0x80, *rest]))
    for command in (("enroll", DOOR, "--out", tmp_path / "out"), ("revoke", DOOR)):
        done = run(*command, "--state", fleet.folder)
        if done.exception is not None:
            assert refusal(done).startswith(f"{file}: expected text, got a file that is not text. Restore ")
            return
    pytest.fail("expected a refusal")


def test_a_damaged_serial_number_is_one_error_line(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet")
    enroll_camera(fleet, DOOR)
    file = fleet.pki / "cameras" / "site" / "door.serials"
    file.write_text(file.read_text() + "xyz\n")
    line = refusal(run("revoke", DOOR, "--state", fleet.folder))
    assert line.startswith(f"{file}: expected a hexadecimal number of less than 160 bits in each line, got 'xyz'.")


def test_a_damaged_key_of_a_camera_is_written_again(tmp_path: Path) -> None:
    fleet = Layout(tmp_path / "fleet")
    fleet.issue_key(DOOR)
    kept = fleet.key_file(DOOR).read_bytes()
    fleet.key_file(DOOR).write_bytes(b"\xff" + kept)
    fleet.issue_key(DOOR)
    assert fleet.key_file(DOOR).read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_a_damaged_revocation_list_is_written_again_by_the_next_revocation(tmp_path: Path, content: bytes) -> None:
    authority = Authority.create(tmp_path / "pki")
    authority.revoke({1: "site/gate"})
    (authority.folder / "crl.pem").write_bytes(content)
    authority.revoke({2: DOOR})
    assert authority.on_list() >= {1, 2}


def test_an_authority_without_a_revocation_list_has_revoked_no_certificate(fleet: Layout, tmp_path: Path) -> None:
    folder = copy_authority(fleet, tmp_path / "pki")
    (folder / "crl.pem").unlink()
    assert Authority(folder).on_list() == set()
    assert Authority(folder).revoked() == {}


def test_an_authority_created_without_its_revocation_list_is_completed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    authority = Authority.create(state / "pki")
    for name in ("crl.pem", "revoked.json"):
        (authority.folder / name).unlink()
    assert run("ca", "init", "--keep", "--state", state).exit_code == 0
    written = (authority.folder / "crl.pem").read_bytes()
    assert x509.load_pem_x509_crl(written).issuer == authority.certificate.subject
    assert (authority.folder / "roles" / "mosquitto" / "crl.pem").read_bytes() == written


def test_a_certificate_of_another_authority_does_not_count_as_issued(fleet: Layout, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other")
    theirs = x509.load_pem_x509_certificate(other.issue("bridge").certificate.encode())
    assert other.issued(theirs)
    assert not Authority(fleet.pki).issued(theirs)


def test_a_file_without_a_certificate_has_no_hosts(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    assert certificate_hosts(tmp_path / "text") == certificate_hosts(tmp_path / "none") == []


@pytest.mark.parametrize(("host", "kind"), [("::1", x509.IPAddress), ("example.org", x509.DNSName)])
def test_a_host_is_an_address_or_a_name(host: str, kind: type[x509.GeneralName]) -> None:
    assert isinstance(general_name(host), kind)


@pytest.mark.parametrize("host", ["bär", "", "*", "*.org", "a..b", "-a.example", "broker.example:8883", "x" * 64])
def test_an_invalid_host_is_one_error_line(host: str, fleet: Layout) -> None:
    for command in (("init", "--keep"), ("role", "mosquitto")):
        line = refusal(run("ca", *command, "--state", fleet.folder, "--host", host))
        assert line == f"host: expected a name or an address, got {host!r}. Correct it."


@pytest.mark.parametrize("host", ["::1", "broker", "mqtt_1.site-2.example", "*.example.org"])
def test_a_certificate_may_be_for_an_address_a_name_or_a_wildcard(host: str, fleet: Layout) -> None:
    assert run("ca", "role", "mosquitto", "--state", fleet.folder, "--host", host).exit_code == 0
    assert host in certificate_hosts(Roles(Authority(fleet.pki)).folder("mosquitto") / "tls.crt")


def hosts_of_servers(layout: Layout) -> dict[str, set[str]]:
    """Return the names of each server's certificate besides those of this machine."""
    files = {name: role_folder(layout.pki, name) / "tls.crt" for name in SERVERS}
    return {name: set(certificate_hosts(file)) - set(LOCAL_HOSTS) for name, file in files.items()}


def test_a_named_server_has_its_own_names_only_and_loses_former_ones(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    init = ("ca", "init", "--keep", "--state", layout.folder)
    assert run(*init, "--host", "all", "--host", "old").exit_code == 0
    assert hosts_of_servers(layout) == {name: {"all", "old"} for name in SERVERS}
    named = ("--host", "mosquitto=broker", "--host", "mosquitto=10.0.0.7", "--host", "postgresql=db", "--host", "all")
    assert run(*init, *named).exit_code == 0
    expected = {
        "mosquitto": {"all", "broker", "10.0.0.7"}, "postgresql": {"all", "db"}, "kafka": {"all", "old"},
        "pages": {"all", "old"},
    }  # fmt: skip
    assert hosts_of_servers(layout) == expected
    before = {name: (role_folder(layout.pki, name) / "tls.crt").read_text() for name in SERVERS}
    for kept in (named, ()):
        assert run(*init, *kept).exit_code == 0
        assert {name: (role_folder(layout.pki, name) / "tls.crt").read_text() for name in SERVERS} == before
    role = ("ca", "role", "kafka", "--state", layout.folder, "--host")
    assert run(*role, "new").exit_code == 0
    assert hosts_of_servers(layout)["kafka"] == {"all", "old", "new"}
    assert run(*role, "kafka=kafka").exit_code == 0
    assert hosts_of_servers(layout) == expected | {"kafka": {"kafka"}}


@pytest.mark.parametrize(
    ("command", "host", "expected"),
    [
        (("init", "--keep"), "database=db", f"{', '.join(SERVERS)} before =, got 'database'"),
        (("role", "kafka"), "mosquitto=broker", "kafka before =, got 'mosquitto'"),
    ],
)
def test_a_host_of_an_unknown_server_is_one_error_line(
    command: tuple[str, ...], host: str, expected: str, fleet: Layout
) -> None:
    line = refusal(run("ca", *command, "--state", fleet.folder, "--host", host))
    assert line == f"--host: expected {expected}. Correct it."


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("revoke", "site/dor"), "or give --unknown to revoke it all the same."),
        (("rotate", "site/dor", "--out", "/nowhere/x"), "or run `pointillist enroll` for a new camera."),
    ],
)
def test_a_camera_that_was_never_enrolled_is_not_revoked(
    fleet: Layout, arguments: tuple[str, ...], remedy: str
) -> None:
    enroll_camera(fleet, DOOR)
    line = refusal(run(*arguments, "--state", fleet.folder))
    assert line == (
        "site/dor: expected an enrolled camera, got none of this name; site/door is similar. "
        f"Correct the name, {remedy}"
    )
    assert "site/dor" not in fleet.accepted_generations()


def test_an_unknown_camera_is_revoked_on_request_and_is_known_from_then_on(fleet: Layout) -> None:
    for option in (("--unknown",), ()):
        done = run("revoke", "yard/gate", "--state", fleet.folder, *option)
        assert (done.exit_code, done.output.split(",")[0]) == (0, "yard/gate: 0 certificates revoked")
    assert "yard/gate" in refused(fleet.pki)


async def test_a_damaged_file_of_generations_leaves_revocations_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "POLL_S", 0.01)
    file, keys = tmp_path / "generations.json", KeyRing(SECRET)
    write_json(file, {DOOR: 3})
    accepted: list[dict[CameraId, int]] = []
    monkeypatch.setattr(keys, "accept_from", accepted.append)

    async def work() -> None:
        await until(lambda: accepted)
        file.write_text("{damaged")
        await until(lambda: any(each["event"] == "file_not_read" for each in logs))

    with capture_logs() as logs:
        await following(file, keys, work())
    assert accepted == [{DOOR: 3}]


def test_every_authority_in_a_bundle_of_certificates_is_trusted(tmp_path: Path) -> None:
    authorities = [Authority.create(tmp_path / name) for name in ("one", "two")]
    context = Tls("".join(each.pem for each in authorities)).context()

    found = {ssl.DER_cert_to_PEM_cert(each).strip() for each in context.get_ca_certs(binary_form=True)}
    assert found == {each.pem.strip() for each in authorities}


def test_certificates_in_another_pem_form_are_parsed_by_openssl(tmp_path: Path) -> None:
    plain, trusted = (Authority.create(tmp_path / name).pem for name in ("one", "two"))
    mixed = plain + trusted.replace(" CERTIFICATE-", " X509 CERTIFICATE-")
    assert len(Tls(mixed).context().get_ca_certs()) == 2


def test_an_attached_camera_is_enrolled_again_after_a_new_authority_or_expiry(
    tmp_path: Path,
) -> None:
    layout, camera = Layout(tmp_path / "state"), CameraId("site/attached")

    def issued_authorities() -> str:
        issued_identity(layout, camera)
        return (Enrolment.read(layout.enrolment(camera)).tls.authorities or "").strip()

    prepare_identities(layout, [], UpSettings())
    assert issued_authorities() == Authority(layout.pki).pem.strip()
    same = layout.enrolment(camera).read_text()
    assert issued_authorities()
    assert layout.enrolment(camera).read_text() == same
    layout.pki.rename(tmp_path / "lost")
    prepare_identities(layout, [], UpSettings())
    assert issued_authorities() == Authority(layout.pki).pem.strip()
    enroll(Authority(layout.pki), layout.camera_key(camera), layout.enrolment(camera), days=-0.5)
    assert issued_authorities() == Authority(layout.pki).pem.strip()


@pytest.mark.parametrize("ahead_days", [3, -21 * 365])
def test_a_start_with_an_authority_that_is_not_valid_now_is_one_error_line_with_its_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_days: int
) -> None:
    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Wrong:
            return cls.fromtimestamp(time.time() + ahead_days * 86_400, tz)

    layout = Layout(tmp_path / "state")
    with monkeypatch.context() as patch:
        wrong = SimpleNamespace(datetime=Wrong, timedelta=datetime.timedelta, UTC=datetime.UTC)
        patch.setattr(authorities, "datetime", wrong)
        prepare_identities(layout, [], UpSettings())
        begin = Authority(layout.pki).certificate.not_valid_before_utc
    with pytest.raises(StateError) as refused_start:
        prepare_identities(layout, [], UpSettings())
    assert str(refused_start.value).startswith(
        f"{layout.pki / 'ca.crt'}: expected an authority that is valid now, got one valid from "
        f"{begin:%Y-%m-%d %H:%M} to "
    )
    layout.pki.rename(tmp_path / "away")
    prepare_identities(layout, [], UpSettings())


def issue_aged(layout: Layout, camera: CameraId, monkeypatch: pytest.MonkeyPatch, age: float, left: float) -> str:
    """Write an enrolment whose certificate began `age` days ago and ends in `left` days; return its text."""
    with monkeypatch.context() as patch:
        patch.setattr(authorities, "_BACKDATED", datetime.timedelta(days=age))
        enroll(Authority(layout.pki), layout.camera_key(camera), layout.enrolment(camera), days=left)
    return layout.enrolment(camera).read_text()


@pytest.mark.parametrize(
    ("age", "left", "renewed"), [(800, 25, True), (790, 35, False), (-1, 825, True), (4, 5, False), (20, -1, True)]
)
def test_enrolments_of_this_machine_that_end_within_a_month_or_are_dated_in_the_future_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, left: float, renewed: bool
) -> None:
    layout, camera = Layout(tmp_path / "state"), CameraId("local/cam-0")
    prepare_identities(layout, [camera], UpSettings())
    renewals: list[Callable[[], None]] = [
        lambda: prepare_identities(layout, [camera], UpSettings()),
        lambda: renew_enrolment(layout, Authority(layout.pki), camera),
    ]
    for renew in renewals:
        before = issue_aged(layout, camera, monkeypatch, age, left)
        renew()
        assert (layout.enrolment(camera).read_text() != before) is renewed
        assert Authority(layout.pki).is_current(Enrolment.read(layout.enrolment(camera)).certificate)


def test_a_running_system_renews_no_enrolment_of_a_camera_that_was_revoked_or_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, camera = Layout(tmp_path / "state"), CameraId("local/cam-0")
    prepare_identities(layout, [camera], UpSettings())
    before = issue_aged(layout, camera, monkeypatch, 800, 25)
    revoke(layout, camera)
    renew_enrolment(layout, Authority(layout.pki), camera)
    assert run("enroll", camera, "--out", tmp_path / "moved.enrolment", "--state", layout.folder).exit_code == 0
    assert refused(layout.pki) == set()
    renew_enrolment(layout, Authority(layout.pki), camera)
    assert layout.enrolment(camera).read_text() == before


def test_the_url_of_a_backup_is_not_in_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "COST", 2**10)
    layout, fresh = Layout(tmp_path / "state"), Layout(tmp_path / "fresh")
    layout.fleet_secret()
    store = Store(layout.console_url)
    store.prepare()
    (tmp_path / "passphrase").write_text("a long passphrase for a test\n")
    place = ("memory://ada:hunter2@host/backups", "--passphrase-file", tmp_path / "passphrase", "--state")
    assert run("backup", "--to", *place, layout.folder).exit_code == 0
    assert run("restore", "--from", *place, fresh.folder).exit_code == 0
    lines = [*Store(layout.console_url).newest_operations(), *Store(fresh.console_url).newest_operations()]
    assert [line.what for line in lines] == ["backup", "restore"]
    assert all("hunter2" not in repr(line) for line in lines)
    store.close()
