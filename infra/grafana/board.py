"""Common parts of all dashboards: variables, links, annotations, and rows of panels."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from infra.grafana.panels import DATA_SOURCE, Row
from infra.grafana.promql import selector
from schemas import metrics as m

REFRESH: Final = "5s"
CONSOLE: Final = "http://127.0.0.1:8080"
"""Default URL, as in compose. `up` and `python -m infra.grafana --console URL` replace it."""
TAG: Final = "pointillist"


class _Events(models.AnnotationQuery):
    """An annotation from Prometheus: the SDK's own lacks the texts and times of that data source."""

    def __init__(self, name: str, colour: str, expression: str, title: str, text: str, *, at_value: bool) -> None:
        super().__init__(name, DATA_SOURCE, icon_color=colour, expr=expression)
        self._more = {
            "step": "5s",
            "titleFormat": title,
            "textFormat": text,
            # The series' value is then the time of the event in milliseconds, not the state of the event.
            "useValueForTime": "on" if at_value else False,
        }

    def to_json(self) -> dict[str, object]:
        """Return Grafana's JSON."""
        return {**super().to_json(), **self._more}


class _Mark(Builder[models.AnnotationQuery]):
    """The builder of the annotation for the SDK's dashboards."""

    def __init__(self, events: _Events) -> None:
        self._events = events

    def build(self) -> models.AnnotationQuery:
        """Return the annotation."""
        return self._events


ANNOTATIONS: Final = (
    _Events(
        "Alerts",
        "red",
        'ALERTS{alertstate="firing", alertname=~"Pointillist.*"}',
        "{{alertname}}",
        "{{role}} {{camera_id}} {{severity}}",
        at_value=False,
    ),
    _Events(
        "Model changes",
        "blue",
        f"sum by (role, model_id) ({m.MODEL_INFO.name} unless {m.MODEL_INFO.name} offset 30s)",
        "{{role}} serves another model",
        "{{model_id}}",
        at_value=False,
    ),
    _Events(
        "Restarts",
        "orange",
        f"max by (role) ({selector('process_start_time_seconds', job=TAG)}) * 1000",
        "{{role}} has started",
        "",
        at_value=True,
    ),
)


def board(uid: str, title: str, description: str, rows: list[Row], *, of: tuple[str, ...]) -> dashboard.Dashboard:
    """Return a dashboard of the last fifteen minutes; `of` names the variables that select its series."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh(REFRESH)
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for name in ("datasource", *of, "console"):
        built = built.with_variable(_VARIABLES[name]())
    for link in _links():
        built = built.link(link)
    for annotation in ANNOTATIONS:
        built = built.annotation(_Mark(annotation))
    number = 0
    for row in rows:
        number += 1
        built = built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built = built.with_panel(panel.build().id(number))
    return built


def _links() -> list[dashboard.DashboardLink]:
    others = dashboard.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    pages = [("Console", "${console}/"), ("Alerts", "${console}/alerts"), ("Rules", "${console}/rules")]
    return [
        others.include_vars(True).keep_time(True),
        *(
            dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url).target_blank(True)
            for title, url in pages
        ),
    ]


def _source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _choice(name: str, label: str, query: str, regex: str, everything: str) -> dashboard.QueryVariable:
    """Return a variable for several values of a label, all of them by default."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .regex(regex)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NUMERICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _site() -> dashboard.QueryVariable:
    return _choice("site", "Site", f"label_values({m.CAMERA_AGE.name}, camera_id)", "/^([^\\/]+)\\//", "[^/]+")


def _camera() -> dashboard.QueryVariable:
    chosen = selector(m.CAMERA_AGE.name, camera_id="$site/.*")
    # `other` is the series of all cameras beyond those that a metric shows by name, whatever their site.
    return _choice("camera", "Camera", f"label_values({chosen}, camera_id)", "/\\/(.+)$/", ".*|other")


def _role() -> dashboard.QueryVariable:
    return _choice("role", "Role", f"label_values({selector('up', job=TAG)}, role)", "", ".*")


def _address(name: str, label: str, address: str) -> dashboard.TextBoxVariable:
    return dashboard.TextBoxVariable(name).label(label).default_value(address)


_VARIABLES: Final[dict[str, Any]] = {
    "datasource": _source,
    "site": _site,
    "camera": _camera,
    "role": _role,
    "console": lambda: _address("console", "Console", CONSOLE),
}
