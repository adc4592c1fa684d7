"""One run of the whole system: start, watch, drain, stop, report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from consumers.database.migrations import upgrade_database
from infra.local.disk_space import DiskSpace
from infra.local.kafka import KafkaNodes
from infra.local.mosquitto import Mosquitto, mosquitto_binary
from infra.local.ports import Ports
from infra.local.private_folder import private_folder
from infra.local.role_table import RoleTable
from infra.local.topics import pointillist_topics, prepare_topics
from infra.pki.role_generations import role_generations
from infra.process.exit_status import FLEET_PENDING
from infra.settings.variable import resolve
from infra.state_folder import Layout, write_report, write_secret
from infra.state_folder.environment import Environment
from infra.up.attached import attached_frames
from infra.up.background_task import BackgroundTask
from infra.up.console_address import advice, check_console
from infra.up.ending import closing_line
from infra.up.identities import prepare_identities
from infra.up.interrupts import INTERRUPTED, Interrupts, interrupts
from infra.up.listener import outside_listener
from infra.up.preparation import (
    check_sources,
    console_places,
    fleet_parts,
    forget_former,
    note_commands,
    note_missing_network,
    note_unchecked_probes,
)
from infra.up.processes import LocalRoles, Role
from infra.up.published_model import published_in_place
from infra.up.renewal import CertificateRenewal
from infra.up.settings import (
    CameraLimits,
    UpSettings,
    bundle_folder,
    camera_limits,
    listed_document,
    scenario_document,
    with_bundle_of,
)
from infra.up.supervisor import RoleSupervisor
from infra.up.system_line import SystemLine
from infra.up.system_state import PAGES, CameraState, camera_states
from infra.up.table import LiveTable
from infra.up.watching import MonitoringServers, check_receivers
from producers.camera.camera_settings import CameraSettings
from producers.fleet.camera_file import load_camera_file
from producers.fleet.first_start import forget_starts
from producers.simulation.red_team import RedTeam
from producers.simulation.scenario import parse_scenario
from schemas.clock import unix_ms
from schemas.errors import ConfigError, StateError, UserError
from schemas.identity import CameraId
from schemas.runtime.disk import full_disk_error, is_full
from schemas.runtime.followed_file import FileVersion, file_version
from schemas.runtime.json_files import write_json

if TYPE_CHECKING:
    from infra.audit.audit import Audit

READY_S = 120.0
STOP_S = 15.0
FRAME_PARTITIONS = 6
TICK_S = 0.1


def run_up(settings: UpSettings, environment: Environment, table: LiveTable) -> tuple[int, dict[str, Any]]:
    """Run the system; return the exit status (0 when nothing is lost or pending) and the report.

    Raises UserError for errors that the user can correct; everything that was started is stopped again.
    """
    list_version = None
    if settings.cameras_file is not None:
        list_version = file_version(settings.cameras_file)
        cameras = [listed.settings for listed in load_camera_file(settings.cameras_file).values()]
        document = listed_document(cameras)
    else:
        document = scenario_document(settings, environment.data)
        cameras = []
        if not settings.without_cameras:
            scenario = parse_scenario(document)
            cameras = scenario.cameras()
            # Fail now if an attack lacks something, rather than when all else runs.
            RedTeam(scenario.generators)
    named = settings.bundle
    settings = with_bundle_of(document, settings)
    bundle_folder(settings)
    check_receivers(settings)
    mosquitto_binary()
    layout = Layout(settings.state.resolve())
    with private_folder(layout.folder), RoleTable(layout.folder) as roles, interrupts() as asked:
        roles.kill_leftovers()
        run = _Run(settings, layout, roles, table, asked, list_version)
        try:
            try:
                run.prepare(cameras, document)
                run.start()
                if named is not None:
                    run.note_published_model(named)
            except OSError as error:
                if not is_full(error):
                    raise
                raise full_disk_error(layout.folder) from None
            run.watch()
            run.drain()
        finally:
            run.stop()
        return run.finish()


class _Run:
    def __init__(
        self,
        settings: UpSettings,
        layout: Layout,
        table: RoleTable,
        live: LiveTable,
        asked: Interrupts,
        list_version: FileVersion = None,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._live = live
        self._asked = asked
        self._ports = Ports(layout.folder)
        self._supervisor = RoleSupervisor(table, DiskSpace(layout.folder), live.print_line)
        pki = None if settings.plain else layout.pki
        self._mosquitto = Mosquitto(
            layout.folder, self._ports, pki=pki, outside=outside_listener(settings), print_line=live.print_line
        )
        self._kafka = KafkaNodes(layout.folder, self._ports, settings.kafka_nodes, pki, live.print_line)
        self._begun = time.monotonic()
        self._started_ms = unix_ms()
        self._startup_s = 0.0
        self._brokers: list[Role] = []
        self._roles: list[Role] = []
        self._foreign_before = 0
        self._fleets: list[Role] = []
        self._scraped: list[Role] | None = None
        self._parts = 1
        self._watching = MonitoringServers(settings, layout, self._ports)
        self._system = SystemLine(layout)
        self._limits: CameraLimits | None = None
        self._cameras: frozenset[CameraId] = frozenset()
        """The cameras of the fleet, with those that were on their list for a part of the run."""
        self._list_version = list_version
        """The version of the list of cameras that was read last."""
        self._record: dict[str, Any] = {}
        """The content of run.json."""
        self._renewal = CertificateRenewal(layout, lambda: self._cameras, live.print_line)

    def prepare(self, settings: Sequence[CameraSettings], document: dict[str, Any]) -> None:
        """Check the sources; write the scenario, the keys and the settings of this run."""
        check_console(self._settings, self._layout)
        check_sources(self._layout, settings, self._live.print_line, self._asked.stop_here)
        cameras = [camera.camera_id for camera in settings]
        self._cameras = frozenset(cameras)
        self._parts = fleet_parts(self._settings, len(cameras))
        self._limits = camera_limits(self._settings, settings)
        prepare_identities(self._layout, cameras, self._settings)
        if self._settings.report is not None:
            write_report("--report", self._settings.report, {})
        if self._layout.database.exists():
            # Here and below: its imports would delay each start.
            from infra.audit.audit import audit

            upgrade_database(self._layout.database_url)
            found = audit(self._layout)
            self._foreign_before = found.foreign
            self._print_unread(found)
        note_missing_network(self._settings, settings, self._live.print_line)
        note_unchecked_probes(self._settings, settings, self._live.print_line)
        # A new run: its sources start at their beginning, its faults count from its own start.
        forget_starts(self._layout.folder)
        note_commands(self._layout, settings, self._live.print_line)
        store = resolve(self._settings.console.store) or self._layout.console_url
        forget_former(self._layout, cameras, store, self._live.print_line)
        if (note := advice(self._settings, self._layout)) is not None:
            self._live.print_line(note)
        # An address may hold a password: the scenario is for its owner only, and is not repeated elsewhere.
        write_secret(self._layout.scenario, yaml.safe_dump(document, sort_keys=False))
        options = json.loads(self._settings.model_dump_json(exclude={"source"}))
        if (listed := self._settings.cameras_file) is not None:
            options["cameras_file"] = str(listed.resolve())
        options["console"] |= console_places(self._settings)
        bundle = str(bundle_folder(self._settings))
        self._record = {"started_ms": self._started_ms, "bundle": bundle, "options": options}
        write_json(self._layout.run, self._record)

    async def _create_topics(self) -> None:
        """Create the topics and the rights."""
        admin, retention_s = self._kafka.access("admin"), self._settings.kafka_retention_s
        topics = pointillist_topics(FRAME_PARTITIONS, self._settings.kafka_nodes, retention_s)
        generations = None if self._settings.plain else role_generations(self._layout.pki)
        await prepare_topics(admin, topics, retention_s, generations)

    def start(self) -> None:
        """Start brokers and processors together, then the other roles, then, when all are ready, the cameras.

        A processor's start is the longest, and its model needs no broker.
        """
        mosquitto = Role("mosquitto", self._mosquitto, lambda: self._mosquitto.listen, log=self._mosquitto.log)
        kafka = [Role(node.role, node, partial(getattr, node, "listen"), log=node.log) for node in self._kafka.nodes]
        self._live.print_line("starting mosquitto and Kafka")
        self._brokers = [mosquitto, *kafka]
        self._mosquitto.reserve()
        reserved = self._kafka.reserve()
        # In parallel: no node of Kafka is ready before most are.
        with ThreadPoolExecutor(len(self._brokers)) as starting:
            futures = [starting.submit(self._supervisor.start, role) for role in self._brokers]
            self._start_roles(self._local(reserved).processors())
            for future in futures:
                future.result()
        if self._kafka.bootstrap != reserved:  # another program has taken the port meanwhile
            for role in self._roles:
                self._supervisor.stop(role, STOP_S)
            self._roles = []
            self._start_roles(self._local(self._kafka.bootstrap).processors())
        local = self._local(self._kafka.bootstrap)
        asyncio.run(self._create_topics())
        console = local.console(prometheus=self._watching.is_enabled)
        self._start_roles([*local.bridges(), local.recorder(), console])
        self._watching.start(self._start_monitoring, self._live.print_line, console.url or "")
        # A monitor with the address of an Alertmanager that could not start would never be ready.
        self._start_roles([local.monitor(alertmanager=self._watching.alertmanager, console=console.url)])
        self._live.print_line("waiting for the bridge, the processors and the recorder")
        self._supervisor.await_health(self._roles, READY_S, self._asked.stop_here)
        # The fleets end a run of limited time. It would not end if they were started again and again.
        self._supervisor.keep(later=self._settings.seconds is None)
        self._startup_s = time.monotonic() - self._begun
        for fleet in local.fleets(self._parts):
            self._fleets.append(fleet)
            self._supervisor.start(fleet)
        self._scrape(self._fleets)
        pages = [role for role in self._brokers if role.name in PAGES]
        shown = {role.name: role for role in [*self._roles, *self._fleets, *pages]}
        self._system.start()
        state = self._layout.state_option
        self._live.begin(shown, self._startup_s, self._broken_cameras, self._attached_frames, self._system, state)
        if not self._settings.plain:
            self._renewal.start()

    def note_published_model(self, named: Path) -> None:
        """Print a line if a published model is served in place of the bundle that the user has named."""
        found = published_in_place(bundle_folder(self._settings), self._kafka.access("admin"), self._layout)
        if found is not None:
            self._live.print_line(
                f"--bundle: {named} is not served, because the published model {found} is live. To serve the bundle, "
                f"run `pointillist model rollback --own {self._layout.state_option}`."
            )

    def _local(self, kafka: str) -> LocalRoles:
        return LocalRoles(
            self._settings, self._layout, self._ports, self._mosquitto.listen, kafka, self._limits,
        )  # fmt: skip

    def _start_roles(self, roles: Sequence[Role]) -> None:
        for role in roles:
            self._asked.stop_here()
            self._roles.append(role)
            self._supervisor.start(role)

    def _broken_cameras(self) -> list[CameraState]:
        return [camera for camera in camera_states(self._layout) if camera.broken]

    def _include_added(self) -> None:
        """Include the cameras that have been added to the list meanwhile, and record them for the next run."""
        listed = self._settings.cameras_file
        if listed is None or (version := file_version(listed)) == self._list_version:
            return
        self._list_version = version
        with contextlib.suppress(UserError):  # the cameras of the earlier file continue
            added = load_camera_file(listed).keys() - self._cameras
            if added:
                self._cameras |= added
                self._record["added_cameras"] = sorted(added.union(self._record.get("added_cameras", ())))
                with contextlib.suppress(OSError):  # of a full disk
                    write_json(self._layout.run, self._record)

    def _attached_frames(self) -> int:
        self._include_added()
        return attached_frames(self._layout.database_url, self._started_ms, self._cameras)

    def _start_monitoring(self, role: Role) -> None:
        self._brokers.append(role)
        self._supervisor.start(role)

    def watch(self) -> None:
        """Keep everything running until the fleet is done or the user stops the run."""
        while (running := self._unfinished()) or self._waits():
            self._scrape(running)
            self._supervisor.watch()
            self._live.tick()
            if self._asked.count:
                self._live.stopping()
                self._live.print_line("stopping: the cameras drain, interrupt again to stop at once")
                for fleet in self._fleets:
                    self._supervisor.forget(fleet.name)
                self._await_stopped()
                break
            time.sleep(TICK_S)
        self._scrape([])
        self._live.stopping()
        if any(fleet.process.poll() == FLEET_PENDING for fleet in self._fleets):
            self._live.print_line(
                "the cameras' spools still held frames at the drain deadline: the next `up` with these cameras sends "
                "them"
            )

    def _waits(self) -> bool:
        """Return whether a run without cameras of its own goes on for those of others."""
        seconds = self._settings.seconds
        if self._fleets or not self._settings.without_cameras:
            return False
        return seconds is None or time.monotonic() - self._begun < self._startup_s + seconds

    def _unfinished(self) -> list[Role]:
        return [fleet for fleet in self._fleets if fleet.process.poll() not in fleet.final]

    def _scrape(self, fleets: list[Role]) -> None:
        """Scrape the roles and these fleets. A finished fleet does not answer and is not down."""
        if fleets == self._scraped:
            return
        try:
            self._watching.scrape([*self._roles, *fleets])
        except OSError as error:
            if not is_full(error):  # on a full disk, the next call tries again
                raise
        else:
            self._scraped = list(fleets)

    def _await_stopped(self) -> None:
        with ThreadPoolExecutor(max(1, len(self._fleets))) as stopping:
            deadline_s = self._settings.drain_s + STOP_S
            stops = [(fleet, stopping.submit(fleet.process.stop, deadline_s)) for fleet in self._fleets]
            while not all(done.done() for _, done in stops) and self._asked.count < 2:
                self._scrape(self._unfinished())
                self._supervisor.watch()
                time.sleep(TICK_S)
            for fleet, done in stops:
                if not done.done():
                    fleet.process.stop(0)

    def drain(self) -> None:
        """Wait until every frame that the fleet has published has its record, at most until the deadline.

        That includes frames of earlier runs that Kafka holds. A second interrupt ends the wait. Other cameras do not
        count: they keep publishing, and their claims may never arrive.
        """
        end = time.monotonic() + self._settings.drain_s
        check, begun, next_check = self._begin_check(), time.monotonic(), math.inf
        while self._asked.count < 2 and time.monotonic() < end:
            self._supervisor.watch()
            self._live.tick()
            if not check.done(TICK_S):
                continue
            if check.result() == 0:
                return
            # The checks must not slow down the recorder.
            now = time.monotonic()
            next_check = min(next_check, now + max(0.3, 3 * (now - begun)))
            if now >= next_check:
                check, begun, next_check = self._begin_check(), now, math.inf
            else:
                time.sleep(TICK_S)

    def _begin_check(self) -> BackgroundTask[int | None]:
        self._include_added()
        return BackgroundTask(self._count_unsettled, "drain")

    def _count_unsettled(self) -> int | None:
        from infra.audit.audit import unsettled

        # A damaged database is missing for a moment while the recorder creates a new one.
        with contextlib.suppress(StateError):
            return unsettled(self._layout, self._started_ms, self._cameras)
        return None

    def stop(self) -> None:
        """Stop everything by pid, readers before their sources."""
        self._system.close()
        self._live.end()
        self._renewal.close()
        self._watching.close()
        for role in self._fleets + self._roles[::-1] + self._brokers[::-1]:
            self._supervisor.forget(role.name)
        self._supervisor.close()
        bridges_first = sorted(self._roles, key=lambda role: not role.name.startswith("bridge"))
        for group in (self._fleets, bridges_first, self._brokers[::-1]):
            with ThreadPoolExecutor(8) as stopping:
                list(stopping.map(lambda role: self._supervisor.stop(role, STOP_S), group))

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Return the exit status and the report from the files on disk; the report is empty after an interrupt."""
        from infra.audit.report import report

        found = self._audit()
        if found is None:
            self._live.print_line(
                f"interrupted: the audit has not ended. `pointillist audit {self._layout.state_option}` runs it again."
            )
            return INTERRUPTED, {}
        restarts = self._supervisor.restarts
        document = report(found, self._layout, self._started_ms, self._foreign_before, self._startup_s, restarts)
        everything, here = found.counts(), found.counts(self._started_ms)
        left = here.undecided
        older = everything.undecided - left
        if older:
            self._live.print_line(
                f"{older} frames of earlier runs are lost, pending or unread: "
                f"`pointillist audit --json {self._layout.state_option}` lists them"
            )
        self._print_unread(found)
        status = 0 if left == 0 else 1
        file = self._settings.report or self._layout.report
        written: Path | None = file
        try:
            write_report("--report", file, document)
        except ConfigError as error:  # the run is over, and its closing line is printed all the same
            self._live.print_line(str(error))
            status, written = 1, None
        self._live.print_line(closing_line(document, self._supervisor.away_s, written))
        return status, document

    def _audit(self) -> Audit | None:
        from infra.audit.audit import audit

        asked, auditing = self._asked.count, BackgroundTask(partial(audit, self._layout), "audit")
        while not auditing.done(TICK_S):
            if self._asked.count > asked:
                return None
        return auditing.result()

    def _print_unread(self, found: Audit) -> None:
        for line in found.unread:
            self._live.print_line(f"unread: {line}")
