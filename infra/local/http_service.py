"""Base of the local servers of HTTP: their URL, and their page that shows readiness."""

from __future__ import annotations

from infra.local.http import is_ready
from infra.local.service import Service


class HttpService(Service):
    """A service whose clients use HTTP."""

    ready_path: str
    """Path of the page that answers 200 once the service is ready."""

    @property
    def url(self) -> str:
        """Base URL of its pages and its API."""
        return f"http://{self.listen}"

    def _answers(self) -> bool:
        return is_ready(f"{self.url}{self.ready_path}")
