"""`python -m infra.prometheus` writes the runbooks' page and the PrometheusRule into `infra/prometheus`."""

from __future__ import annotations

import sys

from infra.prometheus import operator_rules, runbooks

WRITTEN = {
    runbooks.PAGE: runbooks.rendered(runbooks.SOURCE.read_text()),
    operator_rules.MANIFEST: operator_rules.manifest(operator_rules.SOURCE.read_text()),
}
for file, text in WRITTEN.items():
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    sys.stdout.write(f"{file}\n")
