"""Cost and delay of the console: `python -m benchmarks.scale.console --out docs/results/console`.

- *verdict to page*: 32 cameras at 2 frames/s. Verdicts are signed as processors sign them and pass through a real Kafka
  to a stream that a viewer reads. The figure is the seconds from sending a verdict to its card.
- *fleet*: 1,000 cameras in the database. The figures are the seconds until Chromium shows the first cards, and the
  memory that ten open streams add to the console at 200 verdicts/s.
- *month*: one camera at one frame a second for 30 days in SQLite. The figures are the seconds until Chromium has drawn
  its month, and the time to compute the sums from all its frames.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx2
import psutil
from aiokafka import AIOKafkaProducer
from sqlalchemy import insert

from benchmarks.harness.browser import chromium
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.quantile import quantile
from benchmarks.harness.recorder_store import NO_BROKER, open_store, settings_in
from benchmarks.harness.services import started
from benchmarks.harness.waiting import wait_until
from consumers.cameras.cache import CameraCache
from consumers.cameras.snapshots import Snapshots
from consumers.cameras.transaction_effect import TransactionEffect
from consumers.console.data.rollup import DAY_MS, Rollup
from consumers.console.data.store import Store as Books
from consumers.database.engine import open_engine
from consumers.database.tables import frames
from consumers.records.batch import frame_row
from consumers.records.rows import FrameRow
from infra.local.kafka import Kafka
from infra.local.ports import free_port
from infra.local.process import COMMAND, Child
from infra.local.topics import create_topics, pointillist_topics
from schemas.clock import unix_ms
from schemas.keys.keys import KeyRing
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import CHECKED, NOT_PROBED, Verdict
from schemas.runtime.atomic_file import write_text
from schemas.runtime.json_files import read_json
from schemas.topics import KafkaTopic
from schemas.waiting import cancel

SECRET: Final = "7c" * 32
KEYS: Final = KeyRing(bytes.fromhex(SECRET))
BOOT: Final = 77
_WAIT_S: Final = 60.0
_WORD: Final = re.compile(r'class="verdict">(v[0-9]+)<')
"""The verdict on a card."""

Result = dict[str, Any]


def verdict(seq: int, word: str, captured_ms: int) -> Verdict:
    """Return a verdict whose class is `word`. Every tenth frame is a checked probe."""
    probe = seq % 10 == 0
    return Verdict(
        boot_id=BOOT, seq=seq, captured_ms=captured_ms, processed_ms=captured_ms + 20, class_name=word, confidence=0.9,
        model_id="m", policy="resize", width=32, height=32, channels=3, dropped_per_block=16, frame_bytes=2340,
        pixel_bytes=2304, strip=CHECKED if probe else NOT_PROBED, entropy_bits=1.4 if probe else 0.0,
        threshold_bits=0.4 if probe else 0.0,
    )  # fmt: skip


class Room:
    """A folder with a recorder's database, and the roles that run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = settings_in(folder)
        self.url = self.settings.database
        self.engine = open_store(self.settings, KEYS).engine
        self.page = ""

    def fill(self, names: Sequence[str]) -> None:
        """Save the state of cameras, each with one frame."""
        self.save([frame_row((name, BOOT, 0), verdict(0, "sign", unix_ms()), unix_ms()) for name in names])

    def save(self, last: list[FrameRow]) -> None:
        """Save the state of cameras with these last frames."""
        cache = CameraCache(self.settings)
        cache.apply_transaction(TransactionEffect(rows=last))
        Snapshots(self.engine, 0).save(cache.all(), unix_ms())

    def await_cameras(self, cameras: int) -> None:
        """Wait until the console shows this many cameras. Raises TimeoutError."""
        wait_until(
            lambda: httpx2.get(f"{self.page}/api/v1/cameras").json()["found"] >= cameras, f"{cameras} cameras", _WAIT_S
        )

    @contextmanager
    def console(self, kafka: str, *options: str) -> Iterator[psutil.Process]:
        """Run the console, with further options, until the block ends; it ends with this process too."""
        self.page = f"http://127.0.0.1:{free_port()}"
        command = [*COMMAND, "console", "--kafka", kafka, "--database", self.url]
        command += ["--quarantine", self.settings.quarantine, "--store", f"sqlite:///{self.folder}/console.sqlite"]
        command += ["--mqtt", NO_BROKER, "--http", self.page.removeprefix("http://"), "--connect-timeout-s", "0"]
        command += options
        child = Child(command, self.folder / "console.log", env=os.environ | {"POINTILLIST_FLEET_SECRET": SECRET})
        child.start()
        try:
            _await_page(f"{self.page}/")
            yield psutil.Process(child.pid)
        finally:
            child.stop(30)


def _await_page(url: str) -> None:
    def answers() -> bool:
        try:
            return httpx2.get(url, timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    wait_until(answers, f"an answer of {url}", _WAIT_S)


@contextmanager
def running_kafka(folder: Path) -> Iterator[str]:
    """Run a Kafka with our topics."""
    with started(Kafka(folder)) as kafka:
        asyncio.run(create_topics(kafka.bootstrap, pointillist_topics(6)))
        yield kafka.bootstrap


async def sending(kafka: str, cameras: int, per_second: float, seconds: float, sent_s: dict[str, float]) -> None:
    """Send verdicts of `cameras` in turn. `sent_s` receives the time at which the verdict with each word was sent."""
    async with AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=0) as producer:
        begun_s = time.monotonic()
        for number in itertools.count():
            due_s = begun_s + number / per_second
            if due_s > begun_s + seconds:
                return
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            camera, word = f"drill/cam-{number % cameras}", f"v{number}"
            value = sign_statement(KEYS, camera, verdict(number // cameras, word, unix_ms()))
            sent_s[word] = time.monotonic()
            await producer.send(KafkaTopic.VERDICTS.value, value, key=camera.encode())


async def follow(page: str, receive: Callable[[str], object]) -> None:
    """Read a viewer's stream of the fleet until it is cancelled. Raises an error if the stream fails or ends."""
    async with httpx2.AsyncClient(timeout=None) as client, client.stream("GET", f"{page}/fleet/live") as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            receive(line)
    raise RuntimeError(f"{page}/fleet/live: expected a stream, got its end")


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks that must still run. Raises the error of one that has failed."""
    failed = [task for task in tasks if task.done()]
    await cancel(*tasks)
    for task in failed:
        task.result()


async def verdicts_to_page(kafka: str, page: str, cameras: int, seconds: float) -> list[float]:
    """Return the seconds from sending a verdict to its card in a viewer's stream, except in the first two seconds."""
    sent_s: dict[str, float] = {}
    shown_s: dict[str, float] = {}

    def receive(line: str) -> None:
        if found := _WORD.search(line):
            shown_s.setdefault(found[1], time.monotonic())

    looking = asyncio.create_task(follow(page, receive))
    begun_s = time.monotonic()
    await sending(kafka, cameras, 2.0 * cameras, seconds, sent_s)
    await asyncio.sleep(1.5)
    await cancelled(looking)
    # Some cards are overtaken by the camera's next verdict before a push. Those are not counted.
    return [shown_s[word] - at for word, at in sent_s.items() if word in shown_s and at > begun_s + 2]


def measure_verdicts(folder: Path, kafka: str, seconds: float) -> Result:
    """Measure verdict to page."""
    room = Room(folder)
    with room.console(kafka):
        waits = asyncio.run(verdicts_to_page(kafka, room.page, 32, seconds))
    p50_s, p99_s = (quantile(waits, q) for q in (0.5, 0.99))
    return {"verdicts": len(waits), "p50_s": p50_s, "p99_s": p99_s, "slowest_s": max(waits)}


def in_browser(url: str, selector: str, times: int = 5) -> list[float]:
    """Return the seconds from requesting a page to the element that `selector` matches.

    Each request runs in Chromium, in a fresh context.
    """
    found = []
    with chromium() as browser:
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 860})
            page = context.new_page()
            begun_s = time.monotonic()
            page.goto(url, wait_until="commit")
            page.wait_for_selector(selector, state="attached")
            found.append(time.monotonic() - begun_s)
            context.close()
    return found


def rss(process: psutil.Process) -> int:
    """Return the bytes of memory of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


async def ten_viewers(kafka: str, page: str, console: psutil.Process, cameras: int) -> int:
    """Return the bytes of memory that ten open pages add to the console while verdicts arrive."""
    load = asyncio.create_task(sending(kafka, cameras, 200.0, 60.0, {}))
    await asyncio.sleep(15)
    before = rss(console)
    viewers = [asyncio.create_task(follow(page, len)) for _ in range(10)]
    await asyncio.sleep(20)
    after = rss(console)
    await cancelled(load, *viewers)
    return after - before


def measure_fleet(folder: Path, kafka: str, cameras: int) -> Result:
    """Measure the fleet page."""
    room = Room(folder)
    room.fill([f"drill/cam-{number}" for number in range(cameras)])
    with room.console(kafka) as console:
        room.await_cameras(cameras)
        cards_s = in_browser(f"{room.page}/", "#grid .card")
        added_mib = asyncio.run(ten_viewers(kafka, room.page, console, cameras)) / 2**20
        held = rss(console)
    return {
        "cameras": cameras,
        "first_cards_s": cards_s,
        "console_mib": round(held / 2**20),
        "console_added_mib": round(added_mib, 1),
    }


def measure_month(folder: Path, days: int) -> Result:
    """Measure the month page."""
    room = Room(folder)
    begin_ms = unix_ms() - days * DAY_MS
    total, at_once = days * 86_400, 20_000
    names = [column.name for column in frames.columns]
    statement = insert(frames)
    for start in range(0, total, at_once):
        rows = []
        for seq in range(start, min(total, start + at_once)):
            at_ms = begin_ms + 1_000 * seq
            word = f"class {seq // 7_200 % 12}"
            row = frame_row(("drill/cam-1", BOOT, seq), verdict(seq, word, at_ms), at_ms + 80)
            rows.append(dict(zip(names, row, strict=True)))
        with room.engine.begin() as connection:
            connection.execute(statement, rows)
    room.save([frame_row(("drill/cam-1", BOOT, total), verdict(total, "class", unix_ms()), unix_ms())])
    books = Books(f"sqlite:///{folder}/console.sqlite")
    books.prepare()
    rollup = Rollup(open_engine(room.url, writes=False), books.engine)
    begun_s, steps = time.monotonic(), 0
    while rollup.step():
        steps += 1
    rolled_s = time.monotonic() - begun_s
    books.close()
    with room.console(NO_BROKER):
        _await_page(f"{room.page}/camera/drill/cam-1")
        page = in_browser(f"{room.page}/camera/drill/cam-1?range=month", '#charts[aria-busy="false"]')
        begun_s = time.monotonic()
        answer = httpx2.get(f"{room.page}/camera/drill/cam-1/history?range=month", timeout=30)
        asked_s = time.monotonic() - begun_s
    found = answer.json()
    counted = sum(number for _, number in found["classes"])
    return {
        "frames": total, "counted": counted, "page_s": page, "history_s": asked_s, "points": len(found["columns"]["t"]),
        "rolled_up_s": rolled_s, "steps": steps,
    }  # fmt: skip


def table(document: Result) -> str:
    """Return the figures as Markdown."""
    lines = ["# The console", "", "| what | must | found |", "| --- | --- | --- |"]
    if (one := document.get("verdicts")) is not None:
        lines.append(
            "| 32 cameras: a new verdict is on the fleet page after | ≤ 1.5 s, aim .5 s | "
            f"median {one['p50_s']:.2f} s, p99 {one['p99_s']:.2f} s, "
            f"slowest {one['slowest_s']:.2f} s of {one['verdicts']} |"
        )
    if (one := document.get("fleet")) is not None:
        cards = one["first_cards_s"]
        lines.append(
            f"| {one['cameras']} cameras: first cards in Chromium | ≤ .4 s | median {median(cards):.2f} s, "
            f"slowest {max(cards):.2f} s of {len(cards)} |"
        )
        lines.append(
            f"| the same, 10 viewers: memory of the console | + ≤ 200 MB | {one['console_added_mib']:+.1f} MiB "
            f"(it holds {one['console_mib']}) |"
        )
    if (one := document.get("month")) is not None:
        page = one["page_s"]
        lines.append(
            f"| a month of one camera, {one['frames']:,} frames: its page with charts in Chromium | ≤ 1 s, aim .3 s | "
            f"median {median(page):.2f} s, slowest {max(page):.2f} s of {len(page)}; {one['points']} points in "
            f"{one['history_s']:.3f} s; {one['counted']:,} frames counted |"
        )
        lines.append(
            f"| the sums of that month from its frames, once | – | {one['rolled_up_s']:.1f} s in {one['steps']} steps |"
        )
    lines += [
        "",
        "`python -m benchmarks.scale.console --out docs/results/console`; processor cores that it could use: ",
    ]
    return "\n".join(lines) + f"{document['cores']}; load of the machine before: {document['load']}.\n"


def main() -> None:
    """Measure the requested figures, and write them next to the earlier ones."""
    options = command_line(
        __doc__, "verdicts", "fleet", "month", out=Option(Path, required=True), seconds=30.0, cameras=1_000, days=30
    )
    file = options.out / "console.json"
    document: Result = read_json(file)
    document["cores"] = len(os.sched_getaffinity(0))
    document["load"] = round(os.getloadavg()[0], 1)
    for part in options.names or ("verdicts", "fleet", "month"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if part == "month":
                document[part] = measure_month(folder, options.days)
            else:
                with running_kafka(folder / "kafka") as kafka:
                    document[part] = (
                        measure_verdicts(folder, kafka, options.seconds)
                        if part == "verdicts"
                        else measure_fleet(folder, kafka, options.cameras)
                    )
        print(json.dumps({part: document[part]}))
        report(document, file, shown=False)
        write_text(options.out / "README.md", table(document))


if __name__ == "__main__":
    main()
