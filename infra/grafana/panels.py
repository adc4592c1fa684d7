"""The look of the dashboards' panels: one form for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

from infra.grafana.promql import Query

DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
LETTERS = "ABCDEFGH"
THIRD, QUARTER = 8, 6
"""Widths, in columns, of panels in rows of three or four."""
CAMERA_PAGE = "${console}/camera/${__field.labels.camera_id}"
"""Page of the console with the camera of a series."""


@dataclass(frozen=True)
class Limit:
    """The value at which a figure or a series turns from good to bad: mostly the threshold of an alert rule."""

    value: float
    bad: Literal["above", "below"] = "above"

    def steps(self) -> list[Threshold]:
        """Return the thresholds: a base colour, and the other colour from the value on."""
        base, beyond = ("green", "red") if self.bad == "above" else ("red", "green")
        return [Threshold(color=base), Threshold(value=self.value, color=beyond)]


_ALWAYS_GOOD = [Threshold(color="green")]
"""Thresholds without steps: otherwise a panel would turn red at 80, Grafana's default."""


@dataclass(frozen=True)
class Row:
    """A title above the panels that follow it; the user can fold them away."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class Graph:
    """A panel of series over time. Two or three fit side by side on the 24 columns of a dashboard."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 12
    stacked: bool = False
    limit: Limit | None = None

    def build(self) -> timeseries.Panel:
        """Return the SDK's builder."""
        panel = (
            timeseries.Panel()
            .title(self.title)
            .description(self.description)
            .unit(self.unit)
            .min(0)
            .span(self.width)
            .height(8)
            .fill_opacity(25 if self.stacked else 8)
            .datasource(DATA_SOURCE)
            .legend(
                VizLegendOptions()
                .display_mode(LegendDisplayMode.TABLE)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs(["lastNotNull", "max"])
            )
            .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
            .thresholds(_thresholds(self.limit))
            .thresholds_style(
                GraphThresholdsStyleConfig().mode(
                    GraphTresholdsStyleMode.DASHED if self.limit else GraphTresholdsStyleMode.OFF
                )
            )
        )
        if any("{{camera_id}}" in query.legend for query in self.queries):
            link = dashboard.DashboardLink("This camera in the console").url(CAMERA_PAGE).target_blank(True)
            panel = panel.data_links([link])
        if self.stacked:
            panel = panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
        for letter, query in zip(LETTERS, self.queries, strict=False):
            panel = panel.with_target(_target(query, letter))
        return panel


@dataclass(frozen=True)
class Figure:
    """A panel with one large number, red beyond its limit."""

    title: str
    description: str
    unit: str
    query: Query
    decimals: float = 1
    width: int = 4
    limit: Limit | None = None

    def build(self) -> stat.Panel:
        """Return the SDK's builder."""
        return (
            stat.Panel()
            .title(self.title)
            .description(self.description)
            .unit(self.unit)
            .decimals(self.decimals)
            .span(self.width)
            .height(4)
            .datasource(DATA_SOURCE)
            .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
            .thresholds(_thresholds(self.limit))
            .with_target(_target(self.query, "A"))
        )


Panel: TypeAlias = Graph | Figure


def _thresholds(limit: Limit | None) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limit.steps() if limit else _ALWAYS_GOOD)


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expression).datasource(DATA_SOURCE)
    if query.exemplars:
        target = target.exemplar(True)
    return target.legend_format(query.legend) if query.legend else target
