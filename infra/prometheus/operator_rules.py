"""The alert rules as the Prometheus operator takes them: the field `spec` of a PrometheusRule is a file of rules."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "rules" / "pointillist.yml"
MANIFEST: Final = Path(__file__).parent / "prometheusrule.yaml"

_HEAD: Final = """# Written by `python -m infra.prometheus` from rules/pointillist.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pointillist
  labels: {app.kubernetes.io/part-of: pointillist}
spec:
"""


def manifest(rules: str) -> str:
    """Return the PrometheusRule of a file of rules."""
    return _HEAD + textwrap.indent(rules, "  ")
