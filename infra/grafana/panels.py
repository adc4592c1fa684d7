"""How the dashboards' panels look: one way for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

from infra.grafana.promql import Query

DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="pointillist-prometheus")
REFRESH = "5s"


@dataclass(frozen=True)
class Limit:
    """The value at which a figure turns from good to bad."""

    value: float
    bad: Literal["above", "below"] = "above"

    def steps(self) -> list[Threshold]:
        """A base colour, and the one from the value on."""
        base, beyond = ("green", "red") if self.bad == "above" else ("red", "green")
        return [Threshold(color=base), Threshold(value=self.value, color=beyond)]


@dataclass(frozen=True)
class Graph:
    """Series over time. Two or three stand side by side on the 24 columns of a dashboard."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 12
    stacked: bool = False

    def build(self) -> timeseries.Panel:
        """As the SDK has it."""
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
        )
        if self.stacked:
            panel = panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
        for letter, query in zip("ABCDEFGH", self.queries, strict=False):
            panel = panel.with_target(_target(query, letter))
        return panel


@dataclass(frozen=True)
class Figure:
    """One number, as large as it can be, red beyond its limit."""

    title: str
    description: str
    unit: str
    query: Query
    decimals: float = 1
    width: int = 4
    limit: Limit | None = None

    def build(self) -> stat.Panel:
        """As the SDK has it."""
        # Without steps of its own a figure would turn red at 80, Grafana's default.
        steps = self.limit.steps() if self.limit else [Threshold(color="green")]
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
            .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
            .with_target(_target(self.query, "A"))
        )


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expression).datasource(DATA_SOURCE)
    return target.legend_format(query.legend) if query.legend else target


def board(uid: str, title: str, description: str, panels: list[Graph | Figure]) -> dashboard.Dashboard:
    """A dashboard that shows the last fifteen minutes."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["pointillist"])
        .refresh(REFRESH)
        .time("now-15m", "now")
        .timezone("browser")
        .readonly()
    )
    for number, panel in enumerate(panels, 1):
        built = built.with_panel(panel.build().id(number))
    return built
