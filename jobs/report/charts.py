"""Charts of a report, as SVG that stands in the page. They know numbers and words, and nothing of what these mean.

Places along a chart are in percent of its width, heights in pixels: so a chart is as wide as the screen allows, and its
letters stay as large as the page's. Colours come from the style sheet, by class, light or dark.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.report.html import Html, Inside, element, joined

TOP, BELOW = 14, 46
"""Pixels above the area of a plot, and below it, for the numbers and the name of the axis."""
LINE = 15
"""Pixels between two labels that would else lie on each other."""
SHORT = 18
"""Characters of a name that has room beside its point on a small screen."""
MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """What lies along one side of a plot."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    """Values with the text that stands at each."""
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in percent from the lower end; values beyond the ends lie at the ends."""
        low, high, at = (math.log(one) if self.logarithmic else one for one in (self.low, self.high, value))
        return 100 * min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 50.0


def even_axis(title: str, low: float, high: float, at_most: int = 6) -> Axis:
    """An axis from a round number to a round number, with ticks at round ones."""
    step = round_step((high - low) / at_most) if high > low else 1.0
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple((number * step, f"{number * step:,.{digits}f}") for number in range(first, last + 1))
    return Axis(title, first * step, last * step, ticks)


def round_step(least: float) -> float:
    """The least of 1, 2, 5, 10, 20, ... (and of the tenths and so on below) that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def logarithmic_axis(title: str, low: float, high: float) -> Axis:
    """An axis for values above 0, with a few ticks at round numbers."""
    for factors in ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 5.0), (1.0,)):
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        steps = [factor * 10.0**power for power in powers for factor in factors]
        first = max(step for step in steps if step <= low / 1.1)
        last = min(step for step in steps if step >= high * 1.1)
        ticks = tuple((step, f"{step:,g}") for step in steps if first <= step <= last)
        if len(ticks) <= MOST_TICKS:
            break
    return Axis(title, first, last, ticks, logarithmic=True)


@dataclass(frozen=True, slots=True)
class Point:
    """A named point of a scatter plot, with its interval upwards and downwards where it has one."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a reliability diagram."""

    said: float
    """The mean of what was said."""
    seen: float
    """The share that came true."""
    count: int
    low: float
    high: float
    """The interval of `seen`."""


def interval_bar(
    mean: float, low: float, high: float, told: str, highest: float = 1.0, most: float | None = None
) -> Html:
    """A bar with its interval as a whisker, for the cell of a table; `most`, what could be reached, is a line.

    The same numbers stand in the table, so `told` is what shows under the mouse.
    """
    at = Axis("", 0.0, highest).place
    marks = [
        element("title", told),
        element("rect", x="0", y=4, width=percent(at(mean)), height=12, rx=2, class_="fill"),
        *whisker(at(low), at(high), 10.0),
        None if most is None else line(at(most), 1, at(most), 19, "most", vertical_pixels=True),
    ]
    return element("svg", *marks, class_="bar", width="100%", height=20, aria_hidden="true")


def whisker(low: float, high: float, y: float) -> Iterator[Html]:
    """A line from left to right in percent, with its ends."""
    yield line(low, y, high, y, "whisker", vertical_pixels=True)
    for x in (low, high):
        yield line(x, y - 4, x, y + 4, "whisker", vertical_pixels=True)


def scatter(
    title: str,
    description: str,
    points: Sequence[Point],
    x: Axis,
    y: Axis,
    level: tuple[str, float] | None = None,
    height: int = 320,
) -> Html:
    """Named points with their intervals, and perhaps a named line from left to right.

    Long names stand below the plot, and letters in their place.
    """
    is_short = all(len(point.label) <= SHORT for point in points)
    letters = [point.label if is_short else letter(number) for number, point in enumerate(points)]
    marks: list[Inside] = []
    if level is not None:
        at = 100 - y.place(level[1])
        marks.append(line(0, at, 100, at, "diagonal"))
        marks.append(label(level[0], x="100%", y=percent(at), dy="-0.4em", text_anchor="end"))
    label_heights = apart([height - height * y.place(one.y) / 100 for one in points])
    for point, name, label_y in zip(points, letters, label_heights, strict=True):
        at_x, at_y = x.place(point.x), 100 - y.place(point.y)
        told = element("title", f"{point.label}: {x.title} {point.x:,.4g}, {y.title} {point.y:.3f}")
        if point.low is not None and point.high is not None:
            marks.append(line(at_x, 100 - y.place(point.low), at_x, 100 - y.place(point.high), "whisker"))
        marks.append(element("circle", told, cx=percent(at_x), cy=percent(at_y), r=6, class_="dot"))
        left = at_x > 55
        marks.append(
            label(
                name,
                x=percent(at_x),
                y=percent(100 * label_y / height),
                dx=-11 if left else 11,
                dy="0.35em",
                text_anchor="end" if left else "start",
                class_="label",
            )
        )
    chart = plot(title, description, x, y, marks, height)
    if is_short:
        return chart
    names = (element("li", element("b", name), f" {point.label}") for name, point in zip(letters, points, strict=True))
    return joined([chart, element("ul", *names, class_="legend")])


def letter(number: int) -> str:
    """A, B, ... and A1, B1, ... for the 27th and after."""
    return f"{chr(ord('A') + number % 26)}{number // 26 or ''}"


def cloud(
    title: str, description: str, points: Sequence[tuple[float, float]], x: Axis, y: Axis, height: int = 320
) -> Html:
    """Many points without names, and the line on which both values are equal."""
    marks = [diagonal(x, y)]
    marks += [
        element("circle", cx=percent(x.place(one)), cy=percent(100 - y.place(other)), r=3, class_="speck")
        for one, other in points
    ]
    return plot(title, description, x, y, marks, height)


def histogram(
    title: str,
    description: str,
    x: Axis,
    edges: Sequence[float],
    above: tuple[str, Sequence[float]],
    below: tuple[str, Sequence[float]] | None = None,
    height: int = 220,
) -> Html:
    """Shares by bin: one kind as bars upwards, and perhaps another as bars downwards from the same line.

    Each kind has a name and a share for each bin. Above and below have the same scale.
    """
    scale = even_axis("share of each", 0.0, max([*above[1], *(below[1] if below else ()), 1e-9]) * 1.1, 3)
    zero = 50.0 if below else 100.0
    marks: list[Inside] = []
    for (name, shares), css, upwards in ((above, "fill", True), *([(below, "other", False)] if below else [])):
        for share, left, right in zip(shares, edges[:-1], edges[1:], strict=True):
            if share > 0:
                tall = share / scale.high * zero
                told = element("title", f"{name}, {left:,.3g} to {right:,.3g}: {share:.1%}")
                wide = max(x.place(right) - x.place(left) - 0.3, 0.2)
                place = {"x": x.place(left), "width": wide, "y": zero - tall if upwards else zero, "height": tall}
                marks.append(element("rect", told, class_=css, **{key: percent(one) for key, one in place.items()}))
    marks.append(line(0, zero, 100, zero, "axis"))
    marks.append(label(f"↑ {above[0]}" if below else above[0], x="1%", y="0", dy="1.2em", class_="label"))
    if below:
        marks.append(label(f"↓ {below[0]}", x="1%", y="100%", dy="-0.7em", class_="label"))
    ticks = [(share, f"{share:.0%}" if scale.high >= 0.05 else f"{share:.1%}") for share, _ in scale.ticks]
    ticks += [(-share, text) for share, text in ticks if share > 0] if below else []
    y = Axis(scale.title, -scale.high if below else 0.0, scale.high, tuple(ticks))
    return plot(title, description, x, y, marks, height)


def reliability(title: str, description: str, x: Axis, y: Axis, bins: Sequence[Bin], height: int = 360) -> Html:
    """What was said against what came true: a dot for each bin with its interval, the larger the more is in it."""
    most = max((one.count for one in bins), default=1)
    marks = [diagonal(x, y)]
    for one in bins:
        at = x.place(one.said)
        told = element("title", f"said {one.said:.3f}, seen {one.seen:.3f}, {one.count:,} in it")
        marks.append(line(at, 100 - y.place(one.low), at, 100 - y.place(one.high), "whisker"))
        radius = 3 + 6 * math.sqrt(one.count / most)
        marks.append(
            element("circle", told, cx=percent(at), cy=percent(100 - y.place(one.seen)), r=radius, class_="dot")
        )
    return plot(title, description, x, y, marks, height, css="square")


def plot(
    title: str, description: str, x: Axis, y: Axis, marks: Sequence[Inside], height: int, css: str | None = None
) -> Html:
    """The frame of a chart: grid, numbers, names of both axes, and the marks, placed in percent of the area."""
    grid: list[Inside] = []
    for value, text in y.ticks:
        at = 100 - y.place(value)
        grid.append(line(0, at, 100, at, "grid"))
        grid.append(label(text, x="0", y=percent(at), dx=-7, dy="0.32em", text_anchor="end"))
    for value, text in x.ticks:
        at = x.place(value)
        grid.append(line(at, 100, at, 101.5, "axis"))
        grid.append(label(text, x=percent(at), y="100%", dy="1.5em", text_anchor="middle"))
    grid.append(line(0, 100, 100, 100, "axis"))
    area = element("svg", *grid, *marks, x="12%", y=TOP, width="84%", height=height, class_="area")
    name = label(x.title, x="54%", y=TOP + height + BELOW - 6, text_anchor="middle", class_="title")
    key = hashlib.sha256(f"{title}\n{description}".encode(errors="replace")).hexdigest()[:10]
    told = joined([element("title", title, id=f"t{key}"), element("desc", description, id=f"d{key}")])
    inside = element(
        "svg",
        *(told, area, name),
        role="img",
        aria_labelledby=f"t{key} d{key}",
        class_="plot",
        width="100%",
        height=TOP + height + BELOW,
    )
    caption = element("figcaption", element("strong", title), " ", element("span", y.title, class_="quiet"))
    return element("figure", caption, inside, class_=css)


def diagonal(x: Axis, y: Axis) -> Html:
    """The line on which both values are equal."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    return line(x.place(low), 100 - y.place(low), x.place(high), 100 - y.place(high), "diagonal")


def line(x1: float, y1: float, x2: float, y2: float, css: str, vertical_pixels: bool = False) -> Html:
    """A line between two places in percent, or with heights in pixels."""
    heights = (y1, y2) if vertical_pixels else (percent(y1), percent(y2))
    return element("line", x1=percent(x1), y1=heights[0], x2=percent(x2), y2=heights[1], class_=css)


def label(text: str, **attributes: str | int | float) -> Html:
    """Letters in a chart."""
    return element("text", text, **attributes)


def percent(value: float) -> str:
    """A place in percent, rounded to what can be seen."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def apart(places: Sequence[float]) -> list[float]:
    """The places in pixels, moved down as far as needed so that no two labels lie on each other."""
    moved = list(places)
    below = -math.inf
    for number in sorted(range(len(places)), key=lambda one: places[one]):
        below = moved[number] = max(places[number], below + LINE)
    return moved
