"""`python -m infra.grafana` writes the dashboards' JSON into `infra/grafana/dashboards`."""

from __future__ import annotations

import sys

from infra.grafana.build import FOLDER, rendered

FOLDER.mkdir(exist_ok=True)
for name, text in rendered().items():
    (FOLDER / name).write_text(text)
    sys.stdout.write(f"{FOLDER / name}\n")
