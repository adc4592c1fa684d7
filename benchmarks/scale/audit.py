"""The audit by protocol compared with the audit of files: `python -m benchmarks.scale.audit --out docs/results/audit`.

`--frames` frames of `--cameras` cameras are in Kafka, and the recorded ones also in SQLite and in PostgreSQL. Most are
recorded. Some wait for the processors and some for the recorder. A few were dead-lettered, shed or lost. `pointillist
audit` then counts them from the state folder's files and by protocol in turn, `--rounds` times each, as separate
commands. The page shows seconds and CPU time of each, and whether both gave the same counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import report
from benchmarks.harness.postgresql import PostgreSQL, passing_folder
from benchmarks.harness.recorder_store import open_store, settings_in
from benchmarks.harness.services import started
from benchmarks.scale.recorder import SECRET
from consumers.records.batch import read
from infra.local.kafka import Kafka
from infra.local.process import COMMAND
from infra.local.topics import create_topics, pointillist_topics
from infra.state_folder import Layout, write_secret
from schemas.clock import unix_ms
from schemas.identity import CameraId
from schemas.keys.keys import KeyRing, derive_camera_key
from schemas.messages.frame import Encoding, encode_frame, sign_message
from schemas.messages.server_messages import sign_statement
from schemas.pointillist_pb2 import DeadLetter, Ledger, Range, Verdict
from schemas.runtime.atomic_file import write_text
from schemas.topics import PROCESSORS_GROUP, KafkaTopic

PARTITIONS: Final = 6
PROCESSED: Final = 0.99
"""Share of each partition of the frames topic that the processors have committed."""
RECORDED: Final = 0.985
"""Share of each partition of the verdicts topic that the recorder has read."""
LOST, LETTER = 3, 5
"""Sequence numbers of the lost frame of every hundredth camera, and of the dead letter of every camera."""
SHED: Final = 10
_BATCH: Final = 2_000
_PICTURE = np.zeros((8, 8, 3), np.uint8)
_TAKEN: Final = (KafkaTopic.EVENTS, KafkaTopic.VERDICTS, KafkaTopic.DEAD_LETTERS)


async def fill(kafka: str, cameras: int, frames: int) -> None:
    """Publish the records of the cameras, the bridges and the processors."""
    keys = KeyRing(SECRET)
    async with AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20, max_batch_size=2**18) as producer:
        each = frames // cameras
        for number in range(cameras):
            camera = CameraId(f"local/cam-{number}")
            key, name, boot = derive_camera_key(SECRET, camera), camera.encode(), 1_000 + number
            sent = []
            for seq in range(each):
                frame = encode_frame(key, boot, seq, 1, _PICTURE, Encoding())
                sent.append(await producer.send(KafkaTopic.FRAMES, frame, key=name))
                if seq == LOST and number % 100 == 0:
                    continue
                if seq == LETTER:
                    letter = DeadLetter(camera_id=camera, verified=True, boot_id=boot, seq=seq)
                    signed = sign_statement(keys, camera, letter)
                    sent.append(await producer.send(KafkaTopic.DEAD_LETTERS, signed, key=name))
                    continue
                verdict = Verdict(
                    boot_id=boot, seq=seq, captured_ms=1, processed_ms=2, class_name="stop", width=8, height=8
                )
                sent.append(await producer.send(KafkaTopic.VERDICTS, sign_statement(keys, camera, verdict), key=name))
            ledger = Ledger(
                boot_id=boot, revision=1, started_ms=1_000 + number, next=each + SHED, confirmed_to=each + SHED,
                shed=[Range(first=each, last=each + SHED - 1)], closed=True,
            )  # fmt: skip
            kind = [("ce_type", b"pointillist.v1.Ledger")]
            sent.append(await producer.send(KafkaTopic.EVENTS, sign_message(key, ledger), key=name, headers=kind))
            await asyncio.gather(*sent)


async def take(kafka: str, urls: Sequence[str], folder: Path) -> None:
    """Commit the processors' offsets, and record the recorder's share in each database."""
    stores = [open_store(settings_in(folder, url), KeyRing(SECRET)) for url in urls]
    settings = settings_in(folder)
    async with (
        AIOKafkaConsumer(*_TAKEN, bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest") as reader,
        AIOKafkaConsumer(bootstrap_servers=kafka, group_id=PROCESSORS_GROUP, enable_auto_commit=False) as group,
    ):
        frames = [TopicPartition(KafkaTopic.FRAMES.value, partition) for partition in range(PARTITIONS)]
        group.assign(frames)
        ends = await group.end_offsets(frames)
        await group.commit({tp: round(PROCESSED * end) for tp, end in ends.items()})
        ends = await reader.end_offsets(reader.assignment())
        until = {tp: end if tp.topic == KafkaTopic.EVENTS else round(RECORDED * end) for tp, end in ends.items() if end}
        at: dict[TopicPartition, int] = dict.fromkeys(until, 0)
        keys = KeyRing(SECRET)
        while any(at[tp] < end for tp, end in until.items()):
            found = await reader.getmany(timeout_ms=500, max_records=_BATCH)
            some = [r for tp, records in found.items() for r in records if r.offset < until.get(tp, 0)]
            if not some:
                continue
            batch = read(some, settings, keys, unix_ms())
            before = {place: at[TopicPartition(*place)] or None for place in batch.offsets}
            for store in stores:
                store.write(batch, before)
            at |= {TopicPartition(*place): following for place, (_, following) in batch.offsets.items()}
    for store in stores:
        store.engine.dispose()


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the output of an audit, its seconds and its CPU seconds."""
    began = time.monotonic()
    process = subprocess.Popen([*COMMAND, "audit", "--json", *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    return {
        "said": json.loads(output),
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def main() -> None:
    """Fill the topics and databases, audit both ways in turn, and write the result."""
    options = command_line(__doc__, out=Option(Path, required=True), frames=1000000, cameras=1000, rounds=3)
    with passing_folder() as folder, started(Kafka(folder)) as kafka, started(PostgreSQL(folder)) as postgresql:
        layout = Layout(folder)
        write_secret(layout.secret_file, SECRET.hex())
        asyncio.run(create_topics(kafka.bootstrap, pointillist_topics(PARTITIONS)))
        asyncio.run(fill(kafka.bootstrap, options.cameras, options.frames))
        asyncio.run(take(kafka.bootstrap, [layout.database_url, postgresql.url()], folder))
        files = ["--state", str(folder)]
        protocol = [*files, "--kafka", kafka.bootstrap, "--database", postgresql.url()]
        rounds = [(measured(files), measured(protocol)) for _ in range(options.rounds)]
    options.out.mkdir(parents=True, exist_ok=True)
    document = {
        "frames": options.frames,
        "cameras": options.cameras,
        "command": options.command,
        "same": all(by_files["said"] == by_protocol["said"] for by_files, by_protocol in rounds),
        "said": rounds[0][1]["said"] | {"lost": f"{len(rounds[0][1]['said']['lost'])} boots"},
        **{
            name: {what: [round(each[which][what], 2) for each in rounds] for what in ("seconds", "cpu_seconds")}
            for which, name in enumerate(("files", "protocol"))
        },
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }
    report(document, options.out / "audit.json", shown=False)
    write_text(options.out / "README.md", page(document) + "\n")
    print(page(document))


def page(document: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    counts = Counter({name: value for name, value in document["said"].items() if name.startswith("frames_")})
    lines = [
        "# The audit by protocol",
        "",
        f"`{document['command']}`: {document['cameras']} cameras, "
        f"the same frames on Kafka, in SQLite and on PostgreSQL; {document['machine']}, with other processes running. "
        "Medians of the rounds, in turn.",
        "",
        "| audit | seconds | CPU seconds |",
        "| --- | --- | --- |",
    ]
    for name in ("files", "protocol"):
        each = document[name]
        lines.append(f"| {name} | " + " | ".join(f"{median(each[what]):.1f}" for what in each) + " |")
    same = "the same, in every field" if document["same"] else "**not the same**"
    lines += ["", f"Both results are {same}:", ""]
    lines += [f"- `{name}` {value}" for name, value in counts.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
