"""Revocations by several processes at once, and the revocations that a list lacks afterwards."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from infra.admission.camera_revocation import revoke
from infra.pki.authority import CRL_FILE, LOCAL_HOSTS, Authority
from infra.pki.enrolment import enroll
from infra.pki.roles import CLIENTS, SERVERS, Roles, rights_file
from infra.pki.serials import serials
from infra.state_folder import Layout
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key

START_S: Final = 120.0


def race(cameras: int = 1_000, processes: int = 8) -> dict[str, Any]:
    """Enrol `cameras`, then revoke all of them with `processes` at once.

    `revoked` counts the revocations that returned without an error; `missing` counts, by list, those that the list
    lacks afterwards, and `anywhere` those that any list lacks.
    """
    with tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder:
        layout = Layout(Path(folder))
        names = [CameraId(f"site/cam-{number}") for number in range(cameras)]
        _enrol(layout, names)
        context = multiprocessing.get_context("spawn")
        start, results = context.Barrier(processes + 1), context.Queue()
        workers = [
            context.Process(target=_revoke, args=(layout.folder, names[number::processes], start, results))
            for number in range(processes)
        ]
        for worker in workers:
            worker.start()
        start.wait(START_S)
        begun = time.monotonic()
        revoked = [camera for _ in workers for camera in results.get()]
        lasted = time.monotonic() - begun
        for worker in workers:
            worker.join()
        lists = _lists(layout, revoked)
        found = {"cameras": cameras, "processes": processes, "revoked": len(revoked), "seconds": round(lasted, 1)}
        missing = {name: len(set(revoked) - holds) for name, holds in lists.items()}
        anywhere = [camera for camera in revoked if not all(camera in holds for holds in lists.values())]
        return found | {"missing": missing | {"anywhere": len(anywhere)}}


def _enrol(layout: Layout, names: Sequence[CameraId]) -> None:
    authority = Authority.create(layout.pki)
    Roles(authority).ensure((*SERVERS, *CLIENTS), LOCAL_HOSTS)
    secret = layout.fleet_secret()
    for name in names:
        enroll(authority, derive_camera_key(secret, name), layout.enrolment(name))


def _revoke(folder: Path, names: Sequence[CameraId], start: Any, results: Any) -> None:
    done: list[CameraId] = []
    start.wait(START_S)
    try:
        for name in names:
            revoke(Layout(folder), name)
            done.append(name)
    finally:
        results.put(done)


def _lists(layout: Layout, names: Sequence[CameraId]) -> dict[str, set[CameraId]]:
    """Return the cameras of `names` that each list contains as revoked."""
    on_crl = {entry.serial_number for entry in x509.load_pem_x509_crl((layout.pki / CRL_FILE).read_bytes())}
    known = {int(serial, 16) for serial in json.loads((layout.pki / "revoked.json").read_text())}
    generations = json.loads(layout.generations.read_text())
    refused = set((layout.pki / "refused").read_text().split())
    rights = set(rights_file(layout.pki).read_text().replace("\ntopic deny #", " denied").splitlines())
    return {
        "generations.json": {name for name in names if generations.get(name, 0) == 1},
        "revoked.json": {name for name in names if set(serials(layout.pki, name)) <= known},
        "crl.pem": {name for name in names if set(serials(layout.pki, name)) <= on_crl},
        "refused": {name for name in names if name in refused},
        "mosquitto.acl": {name for name in names if f"user {name} denied" in rights},
    }
