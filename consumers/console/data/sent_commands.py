"""Commands that cameras have not announced yet, in the console's own database."""

from __future__ import annotations

from sqlalchemy import Column, Engine, LargeBinary, Table, Text, delete, select

from consumers.database.console_store import metadata
from consumers.database.engine import insert_or_replace
from schemas.pointillist_pb2 import Command

sent_commands = Table(
    "console_sent_commands",
    metadata,
    Column("camera", Text, primary_key=True, nullable=False),
    Column("message", LargeBinary, nullable=False),
)
"""The last command to each camera that has not announced it, a `Command` without its tag."""


class SentCommands:
    """The last command to each camera that has not announced it yet. Every method may block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def last(self, camera: str) -> Command | None:
        """Return the last command to a camera; None if it was announced or never sent."""
        with self._engine.begin() as connection:
            message = connection.scalar(select(sent_commands.c.message).where(sent_commands.c.camera == camera))
        return None if message is None else Command.FromString(message)

    def keep(self, camera: str, command: Command) -> None:
        """Store a command that was sent, in place of the earlier one."""
        message = command.SerializeToString()
        with self._engine.begin() as connection:
            connection.execute(insert_or_replace(self._engine, sent_commands).values(camera=camera, message=message))

    def drop(self, camera: str) -> None:
        """Delete the command to a camera, which has announced it."""
        with self._engine.begin() as connection:
            connection.execute(delete(sent_commands).where(sent_commands.c.camera == camera))
