"""Line charts as SVG inside HTML: readable on a phone, in the page's own colours, without a script."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from flaxnets.tools.html import Html, tag

WIDTH, HEIGHT = 360, 210  # in units that are pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24  # what axes and their numbers take
MOST_POINTS = 150  # of a line: more would not be seen
COLOURS = 6  # of the style sheet


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      label: in the legend.
      xs, ys: its points, from left to right.
      colour: number of the line's colour.
      pattern: number of its kind of stroke: 0 whole, 1 dashed, 2 dotted.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int
    pattern: int = 0


def line_chart(title: str, x_label: str, series: Sequence[Series], *, share: bool = False) -> Html:
    """A chart with its legend, which names the last value of each line.

    Args:
      title: above the chart.
      x_label: below it.
      series: at least one, with at least one point each.
      share: whether values are shares, to be shown as percentages.
    """
    thinned = [_thin(each) for each in series]
    xs, ys = (np.concatenate([points[axis] for points in thinned]) for axis in (0, 1))
    x_ticks, y_ticks = _ticks(xs, 5), _ticks(ys, 5)
    number = _percentage if share else _number
    marks: list[Html] = []
    for y in y_ticks:
        height = _place(y, y_ticks, HEIGHT - BOTTOM, TOP)
        marks.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, class_="grid"))
        marks.append(tag("text", number(y), x=LEFT - 5, y=height + 4, class_="y"))
    for x in x_ticks:
        across = _place(x, x_ticks, LEFT, WIDTH - RIGHT)
        marks.append(tag("text", f"{x:,g}", x=across, y=HEIGHT - 8, class_="x"))
    legend = []
    for each, points in zip(series, thinned, strict=True):
        places = [
            (_place(x, x_ticks, LEFT, WIDTH - RIGHT), _place(y, y_ticks, HEIGHT - BOTTOM, TOP))
            for x, y in zip(*points, strict=True)
        ]
        kind = f"colour{each.colour % COLOURS} pattern{each.pattern}"
        marks.append(tag("path", d="M" + "L".join(f"{x} {y}" for x, y in places), class_=kind))
        if len(places) == 1:
            marks.append(tag("circle", cx=places[0][0], cy=places[0][1], r=3, class_=kind))
        sample = tag("svg", tag("path", d="M0 5L26 5", class_=kind), viewBox="0 0 26 10", class_="sample")
        legend.append(tag("li", sample, f" {each.label}: {number(each.ys[-1])}"))
    picture = tag("svg", *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} by {x_label}")
    caption = tag("figcaption", tag("b", title), f" by {x_label}")
    return tag("figure", caption, picture, tag("ul", *legend, class_="legend"), class_="chart")


def _thin(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points: means of as many groups of neighbours."""
    parts = min(len(series.xs), MOST_POINTS)
    xs, ys = (
        [group.mean() for group in np.array_split(np.asarray(values, float), parts)]
        for values in (series.xs, series.ys)
    )
    return np.array(xs), np.array(ys)


def _ticks(values: np.ndarray, most: int) -> np.ndarray:
    """Round numbers around all values, two at least."""
    low, high = values.min(), values.max()
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    return np.asarray(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))


def _place(value: float, ticks: np.ndarray, start: float, end: float) -> float:
    return round(float(start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start)), 1)


def _percentage(value: float) -> str:
    return f"{100 * value:.4g}%"


def _number(value: float) -> str:
    return f"{value:,.4g}"
