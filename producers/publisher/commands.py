"""Settings that the server may change while the camera runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import structlog

from schemas.atomic_file import replacing
from schemas.errors import ConfigError, WireError
from schemas.frame import Encoding, open_own_message
from schemas.keys import CameraKey
from schemas.pointillist_pb2 import Command, KeyRequest

_log = structlog.get_logger()


class CameraControl:
    """The camera's encoding and whether it is on: its own settings, then whatever a newer command changed.

    The last command that was obeyed is kept in `folder`, so that neither a restart nor a replayed older command undoes
    it; where it cannot be written it holds all the same, and `persist` tries again. Commands change frames to come,
    never those that are published.
    """

    def __init__(self, folder: Path, key: CameraKey, encoding: Encoding) -> None:
        self.encoding = encoding
        self.enabled = True
        self.key_wanted: tuple[int, int] | None = None
        """Boot id and sequence number of the key frame that the server asked for last, because it misses it."""
        self._path = folder / "command"
        self._key = key
        self._issued_ms = 0
        self._unwritten: bytes | None = None
        with contextlib.suppress(FileNotFoundError, WireError, ConfigError):  # none yet, or one under another key
            self._obey(self._path.read_bytes())

    def command(self, payload: bytes) -> bool:
        """Obey a signed command if it is newer than the last one; returns whether it was obeyed.

        Raises `WireError` for one that is not signed under this camera's key.
        """
        try:
            if not self._obey(payload):
                return False
        except ConfigError as error:
            _log.warning("command_out_of_range", camera=self._key.camera_id, detail=str(error))
            return False
        self._unwritten = payload
        if (problem := self.persist()) is not None:
            _log.warning("command_not_kept", camera=self._key.camera_id, detail=problem)
        return True

    def request_key(self, payload: bytes) -> None:
        """Note which key frame a signed request calls missing.

        Only the one that frames still name matters, so that a request replayed later does nothing. Raises `WireError`
        for one that is not signed under this camera's key.
        """
        request = open_own_message(KeyRequest, self._key, payload)
        self.key_wanted = (request.boot_id, request.seq)

    def persist(self) -> str | None:
        """Write down the last command that was obeyed, if that is still to do; returns what prevents it."""
        if self._unwritten is None:
            return None
        try:
            with replacing(self._path) as fresh:
                fresh.write_bytes(self._unwritten)
        except OSError as error:
            return error.strerror or type(error).__name__
        self._unwritten = None
        return None

    def _obey(self, payload: bytes) -> bool:
        command = open_own_message(Command, self._key, payload)
        if command.issued_ms <= self._issued_ms:
            return False
        encoding = self.encoding
        if command.HasField("dropped_per_block"):
            encoding = replace(encoding, dropped_per_block=command.dropped_per_block)
        if command.HasField("probe_share"):
            encoding = replace(encoding, probe_share=command.probe_share)
        if command.HasField("profile"):
            encoding = replace(encoding, profile=command.profile)
        self.encoding = encoding
        if command.HasField("enabled"):
            self.enabled = command.enabled
        self._issued_ms = command.issued_ms
        return True
