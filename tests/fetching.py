"""Answers of the HTTP servers that a test runs."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.waiting import PATIENCE_S


def fetch(request: str | urllib.request.Request) -> bytes:
    """Return the body of the answer to a request or a URL. Raises HTTPError for a status that is an error."""
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status == 200
        return bytes(answer.read())


def fetch_json(request: str | urllib.request.Request) -> Any:
    """Return the document of the answer to a request or a URL."""
    return json.loads(fetch(request))
