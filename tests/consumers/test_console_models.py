"""Which models are live and served, as the console shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.console.data.models import ModelsWatch
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import LIVE_KEY, bundle_digest, seal
from schemas.pointillist_pb2 import BundleFile, Model, Models, ServedModel
from tests.consumers.console_rig import ConsoleRig

OURS, STRANGER = Signer.new(), Signer.new()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ConsoleRig]:
    made = ConsoleRig(tmp_path)
    made.context.models = ModelsWatch("127.0.0.1:1", "models", TrustedSigners({OURS.public: "ours"}))
    yield made
    made.close()


def listed(*names: str, changed_ms: int) -> Models:
    made = []
    for name in names:
        files = [BundleFile(name=f"{name}.toml", size=1, sha256=bytes(32))]
        made.append(Model(model_id=name, digest=bundle_digest(files), files=files, published_ms=5))
    return Models(published=made, changed_ms=changed_ms)


def test_what_a_trusted_signer_published_is_shown_and_what_processors_say(rig: ConsoleRig) -> None:
    assert rig.context.models is not None
    rig.context.models.take(LIVE_KEY, seal(listed("cured", "before", changed_ms=2), OURS))
    rig.context.models.take(b"processor/p-1", ServedModel(model_id="cured", digest="1").SerializeToString())
    refuses = ServedModel(model_id="own", error="it has other classes").SerializeToString()
    rig.context.models.take(b"processor/p-2", refuses)
    page = rig.browser().get("/models").text
    assert page.count("live</span>") == 1
    assert "it has other classes" in page
    told = rig.browser().get("/api/v1/models").json()
    assert (told["live"], told["served"]["p-2"]["refuses"]) == ("cured", "it has other classes")
    assert [each["model"] for each in told["published"]] == ["cured", "before"]
    rig.context.models.take(b"processor/p-2", None)
    assert "it has other classes" not in rig.browser().get("/models").text


def test_a_strangers_list_changes_nothing_and_is_named(rig: ConsoleRig) -> None:
    assert rig.context.models is not None
    rig.context.models.take(LIVE_KEY, seal(listed("cured", changed_ms=2), OURS))
    rig.context.models.take(LIVE_KEY, seal(listed("evil", changed_ms=3), STRANGER))
    page = rig.browser().get("/models").text
    assert "evil" not in page
    assert "who is not trusted" in page
