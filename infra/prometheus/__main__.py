"""`python -m infra.prometheus` writes the page of runbooks into `infra/prometheus/consoles`."""

from __future__ import annotations

import sys

from infra.prometheus.runbooks import PAGE, SOURCE, rendered

PAGE.parent.mkdir(exist_ok=True)
PAGE.write_text(rendered(SOURCE.read_text()))
sys.stdout.write(f"{PAGE}\n")
