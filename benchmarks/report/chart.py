"""Charts as inline SVG: a picture that needs no script, with the values that `page.js` zooms and names.

Python draws the whole picture once. The script draws it anew for another range or width, from the same numbers: each
drawn thing keeps its own in `data-p`, pairs "x,y" in the units of the axes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 44  # margins around the plot; page.js has the same
_SIDES = {"^": (3, 0.0), "v": (3, 0.5), "<": (3, 0.75), ">": (3, 0.25), "D": (4, 0.0), "s": (4, 0.125)}
_SIDES |= {"p": (5, 0.0), "h": (6, 0.0), "8": (8, 0.0625), "o": (24, 0.0)}  # marker → corners, first one's turn


@dataclass(frozen=True)
class Mark:
    """A point of a chart. `low` and `high` end its interval, NaN = none; `text` is what is said of it."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Series:
    """What a chart shows of one strategy.

    Attributes:
        colour, marker: "#rrggbb", and a marker of matplotlib.
        lines: polylines of (x, y).
        band: (x, low, high) along the first line.
        thin: lines that are drawn thin, such as single seeds.
        hollow: marks that are drawn hollow.
        far: whether the first view of the chart may leave it outside.
    """

    name: str
    colour: str
    marker: str
    marks: tuple[Mark, ...] = ()
    lines: tuple[tuple[tuple[float, float], ...], ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()
    thin: tuple[tuple[tuple[float, float], ...], ...] = ()
    hollow: frozenset[int] = frozenset()
    far: bool = False


@dataclass(frozen=True)
class Chart:
    """Quality against cost.

    Attributes:
        levels: (label, y) of horizontal lines.
        log_x: whether x has a logarithmic axis.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    levels: tuple[tuple[str, float], ...] = ()
    log_x: bool = False


@dataclass(frozen=True)
class _Scale:
    """Where a value lies, in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def chart_html(chart: Chart) -> str:
    """The chart as a figure with its legend; "" when there is nothing to draw. Every text is escaped."""
    ranges = _ranges(chart)
    if ranges is None:
        return ""
    (left, right), (bottom, top) = ranges
    x = _Scale(left, right, LEFT, WIDTH - RIGHT, chart.log_x)
    y = _Scale(bottom, top, HEIGHT - BOTTOM, TOP)
    title = html.escape(chart.title)
    inner = "".join(
        f"<line class='level{' below' if place else ''}' data-y='{_number(value)}' x1='{LEFT}' x2='{WIDTH - RIGHT}' "
        f"y1='{y(value):.1f}' y2='{y(value):.1f}'><title>{html.escape(label)}</title></line>"
        for place, (label, value) in enumerate(chart.levels)
    )
    inner += "".join(_series(series, x, y) for series in chart.series)
    words = html.escape(
        f"{chart.title}. {chart.y_label} against {chart.x_label}: "
        + ", ".join(series.name for series in chart.series)
        + ". The tables below hold the values."
    )
    legend = "".join(_legend(series) for series in chart.series)
    legend += "".join(
        f"<li class='line'><svg class='key' viewBox='-12 -8 24 16' aria-hidden='true'><line class='level"
        f"{' below' if place else ''}' x1='-11' x2='11' y1='0' y2='0'/></svg>{html.escape(label)}</li>"
        for place, (label, _) in enumerate(chart.levels)
    )
    return (
        f"<figure class='chart' data-log='{int(chart.log_x)}' data-x='{_number(left)} {_number(right)}' "
        f"data-y='{_number(bottom)} {_number(top)}'><figcaption>{title}</figcaption>"
        f"<svg class='plot' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{words}'>"
        f"<g class='axes'>{_axes(x, y)}</g>"
        f"<svg class='inside' viewBox='{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}' x='{LEFT}' "
        f"y='{TOP}' width='{WIDTH - LEFT - RIGHT}' height='{HEIGHT - TOP - BOTTOM}'>{inner}</svg>"
        f"<text class='name-x' x='{(LEFT + WIDTH - RIGHT) / 2:.0f}' y='{HEIGHT - 6}' text-anchor='middle'>"
        f"{html.escape(chart.x_label)}</text>"
        f"<text class='name-y' transform='translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)' "
        f"text-anchor='middle'>{html.escape(chart.y_label)}</text></svg>"
        f"<ul class='legend'>{legend}</ul></figure>"
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) from `low` to `high`, at most `most` of them."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def colours_of(charts: Iterable[Chart]) -> list[str]:
    """Every colour that the charts use, once."""
    return list(dict.fromkeys(series.colour for chart in charts for series in chart.series))


def colour_rules(colours: Sequence[str]) -> str:
    """A style rule for each colour, and a lighter one of the same hue on a dark page."""
    light = "".join(f".c{colour[1:]} {{ color: {colour}; }}\n" for colour in colours)
    dark = "".join(f".c{colour[1:]} {{ color: {_lighter(colour)}; }}\n" for colour in colours)
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _lighter(colour: str) -> str:
    """The colour mixed with white until it can be read on a dark page."""
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    luminance = (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]) / 255
    share = max(0.0, 0.62 - luminance)
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


def _ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """What the chart shows at first: x and y from the smallest to the largest, with room around."""
    near = [series for series in chart.series if not series.far] or list(chart.series)
    xs = [x for series in chart.series for x, _ in _points(series)]
    ys = [y for series in near for _, y in _points(series)]
    ys += [end for series in near for mark in series.marks for end in (mark.low, mark.high) if end == end]
    ys += [value for _, value in chart.levels]
    if not xs or not ys:
        return None
    room = 0.07 * (max(ys) - min(ys)) or 0.05 * abs(max(ys)) or 1.0
    low, high = min(xs), max(xs)
    if chart.log_x:
        factor = max((high / low) ** 0.04, 1.02)
        return (low / factor, high * factor), (min(ys) - room, max(ys) + room)
    aside = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return (low - aside if low < 0 else max(0.0, low - aside), high + aside), (min(ys) - room, max(ys) + room)


def _points(series: Series) -> list[tuple[float, float]]:
    return [(mark.x, mark.y) for mark in series.marks] + [point for line in series.lines for point in line]


def _series(series: Series, x: _Scale, y: _Scale) -> str:
    parts = []
    if series.band:
        ends = [(each, high) for each, _, high in series.band] + [(each, low) for each, low, _ in series.band[::-1]]
        parts.append(f"<polygon class='band' {_path(ends, x, y)}/>")
    parts += [f"<polyline class='thin' {_path(line, x, y)}/>" for line in series.thin]
    parts += [f"<polyline class='line' {_path(line, x, y)}/>" for line in series.lines]
    for place, mark in enumerate(series.marks):
        if mark.low == mark.low:
            parts.append(f"<polyline class='bar' {_path([(mark.x, mark.low), (mark.x, mark.high)], x, y)}/>")
        text = html.escape(f"{series.name}: {mark.text}")
        kind = "mark hollow" if place in series.hollow else "mark"
        parts.append(
            f"<path class='{kind}' data-p='{_number(mark.x)},{_number(mark.y)}' d='{marker_path(series.marker)}' "
            f"transform='translate({x(mark.x):.1f} {y(mark.y):.1f})'><title>{text}</title></path>"
        )
    return f"<g class='series c{series.colour[1:]}' data-name='{html.escape(series.name)}'>{''.join(parts)}</g>"


def _path(points: Sequence[tuple[float, float]], x: _Scale, y: _Scale) -> str:
    drawn = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return f"data-p='{' '.join(f'{_number(a)},{_number(b)}' for a, b in points)}' points='{drawn}'"


def _legend(series: Series) -> str:
    name = html.escape(series.name)
    return (
        f"<li data-name='{name}'><svg class='key c{series.colour[1:]}' viewBox='-12 -8 24 16' aria-hidden='true'>"
        f"<line class='line' x1='-11' x2='11' y1='0' y2='0'/><path class='mark' d='{marker_path(series.marker)}'/>"
        f"</svg>{name}</li>"
    )


def _axes(x: _Scale, y: _Scale) -> str:
    """Grid lines with their values."""
    parts = []
    for value in ticks(y.low, y.high, 6):
        parts.append(
            f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y(value):.1f}' y2='{y(value):.1f}'/>"
            f"<text x='{LEFT - 6}' y='{y(value) + 4:.1f}' text-anchor='end'>{value:g}</text>"
        )
    last = -math.inf
    for value in ticks(x.low, x.high, 8):
        if (place := x(value) if value > 0 or not x.log else -math.inf) - last < 40:
            continue
        last = place
        parts.append(
            f"<line x1='{place:.1f}' x2='{place:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'/>"
            f"<text x='{place:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{value:g}</text>"
        )
    return "".join(parts)


def marker_path(marker: str) -> str:
    """The outline of a marker of matplotlib around (0, 0), as SVG's path data."""
    if marker in _SIDES:
        corners, turn = _SIDES[marker]
        radius = 5.5 if corners < 5 else 4.5
        return _closed([_round(radius, turn + place / corners) for place in range(corners)])
    if marker == "d":
        return "M0 -6L3.4 0L0 6L-3.4 0Z"
    if marker == "*":
        return _closed([_round(6 if place % 2 == 0 else 2.5, place / 10) for place in range(10)])
    plus = [(-2, -5), (2, -5), (2, -2), (5, -2), (5, 2), (2, 2), (2, 5), (-2, 5), (-2, 2), (-5, 2), (-5, -2), (-2, -2)]
    if marker == "X":
        half = math.sqrt(0.5)
        plus = [(half * (a - b), half * (a + b)) for a, b in plus]  # type: ignore[misc]
    return _closed(plus)


def _round(radius: float, turn: float) -> tuple[float, float]:
    """A point on a circle, `turn` times round from its top."""
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)


def _closed(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + "Z"


def _number(value: float) -> str:
    return f"{value:.6g}"
