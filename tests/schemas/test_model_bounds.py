from __future__ import annotations

import pytest

from schemas.errors import Malformed
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.models import MAX_BUNDLE_BYTES, MAX_FILES, MAX_NAME, bundle_digest, is_inside, seal, unseal
from schemas.pointillist_pb2 import BundleFile, Model, Models

SIGNER = Signer.new()
TRUSTED = TrustedSigners({SIGNER.public: "tests"})


def listed(count: int, each: int = 1) -> Models:
    files = [BundleFile(name=str(number), size=each, sha256=bytes(32)) for number in range(count)]
    return Models(published=[Model(model_id="m", digest=bundle_digest(files), files=files)])


@pytest.mark.parametrize("models", [listed(1), listed(MAX_FILES), listed(2, MAX_BUNDLE_BYTES // 2)])
def test_a_bundle_at_its_bounds_is_accepted(models: Models) -> None:
    assert unseal(seal(models, SIGNER), TRUSTED) == models


@pytest.mark.parametrize("models", [listed(0), listed(MAX_FILES + 1), listed(1, MAX_BUNDLE_BYTES + 1)])
def test_a_bundle_beyond_its_bounds_is_refused(models: Models) -> None:
    with pytest.raises(Malformed):
        unseal(seal(models, SIGNER), TRUSTED)


def test_the_longest_name_of_a_file_is_inside() -> None:
    assert is_inside("x" * MAX_NAME)
    assert not is_inside("x" * (MAX_NAME + 1))
