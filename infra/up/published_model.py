"""The published model that processors serve in place of the bundle of `up`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from infra.state_folder import Layout
from schemas.errors import BrokerError, BundleError
from schemas.pointillist_pb2 import Models
from schemas.transport.access import KafkaAddress


def published_in_place(bundle: Path, kafka: KafkaAddress, layout: Layout) -> str | None:
    """Return the id of the live published model, unless it is the bundle in the folder `bundle`; None without one."""
    from processors.models.store import bundle_files
    from schemas.messages.models import bundle_digest, live

    model = live(asyncio.run(_models(kafka, layout)))
    if model is None:
        return None
    with suppress(BundleError):  # its files could not have been published
        if bundle_digest(bundle_files(bundle)) == model.digest:
            return None
    return model.model_id


async def _models(kafka: KafkaAddress, layout: Layout) -> Models:
    """Return the list of models; empty if Kafka does not answer: the run goes on without the note."""
    from infra.bundling.models_topic import ModelsTopic
    from schemas.keys.signers import TrustedSigners

    trusted = TrustedSigners.read(layout.trusted if layout.trusted.is_file() else None)
    with suppress(BrokerError):
        async with ModelsTopic(kafka, trusted) as topic:
            return topic.models
    return Models()
