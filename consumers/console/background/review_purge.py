"""The bound on decisions on alerts. Those on alerts that the recorder still has are kept in any case."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from consumers.cameras.episodes import OPEN
from consumers.console.context import ConsoleContext
from consumers.database.tables import alerts
from schemas.batched import batched


async def purge_reviews(context: ConsoleContext) -> None:
    """Delete the oldest decisions beyond `MOST_REVIEWS`, if the recorder's database has no such alert.

    A new database in place of a damaged one has no alerts at first. Kafka returns only the newest ones, whose decisions
    are within the bound.
    """
    oldest = await context.read(context.store.excess_reviews)
    if not oldest:
        return
    stored = await context.read_recorded(_stored, oldest)
    gone = [each for each in oldest if each not in stored]
    await context.write(context.store.review, gone, OPEN, "")
    for each in gone:
        context.reviews.pop(each, None)


def _stored(connection: Connection, alert_ids: Sequence[str]) -> set[str]:
    found = set[str]()
    for some in batched(alert_ids):
        found.update(connection.scalars(select(alerts.c.alert_id).where(alerts.c.alert_id.in_(some))))
    return found
