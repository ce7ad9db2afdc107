"""Draws charts as SVG text: lines, points and bars, in colours that a style sheet decides.

Written here rather than taken from a plotting library because the page must follow the reader's light or
dark setting and stay legible at the width of a phone: that takes SVG whose colours are CSS classes and whose
text is in proportion to a 400-pixel drawing. Plotting libraries write their colours into every element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import NormalDist

WIDTH = 400  # of every drawing; on a phone of 390 pixels nearly as large on the screen
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 42  # margins around a plot's frame
COLOURS = 6  # series beyond begin anew; the style sheet names them s0 to s5
BAR_ROW = 40  # height of a row of bars: its name, and the bar below it
RIDGE_ROW, RIDGE_TOP, RIDGE_SIDE = 58, 20, 14  # height of a row of ridges, of its name; margin at both sides
BINS = 60  # of a ridge
DIGIT = 8.0  # about how wide and high a digit is
NUMBER_AWAY, FAR = 12.0, 20.0  # of a number from its point; from another point, enough to tell whose it is
RATES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # ticks of an error rate


@dataclass(frozen=True)
class Axis:
    """Where values lie between the ends of an axis.

    Attributes:
        label: What it shows, with its unit.
        low: Value at its beginning.
        high: Value at its end.
        ticks: Values that are named.
        scale: Monotonic map to what is drawn at even distances.
        text: Names a tick.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    scale: Callable[[float], float] = float
    text: Callable[[float], str] = "{:g}".format

    def place(self, value: float) -> float:
        """Returns where a value lies, from 0 to 1; what lies beyond an end is put there."""
        low, high = self.scale(self.low), self.scale(self.high)
        inside = min(max(value, self.low), self.high)
        return (self.scale(inside) - low) / (high - low)


def linear_axis(label: str, values: Iterable[float], *, from_zero: bool = True) -> Axis:
    """Returns an axis with four to seven round ticks that holds all values."""
    numbers = list(values)
    low, high = (0.0 if from_zero else min(numbers)), max(numbers)
    span = high - low or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(span))
    step = next(m * magnitude for m in (0.2, 0.25, 0.5, 1, 2) if span / (m * magnitude) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    ticks = [round(index * step, 12) for index in range(first, last + 1)]
    return Axis(label, ticks[0], ticks[-1], ticks)


def log_axis(label: str, values: Iterable[float]) -> Axis:
    """Returns a logarithmic axis from 1, 2 or 5 times a power of ten to another that holds all values."""
    numbers = list(values)
    powers = range(math.floor(math.log10(min(numbers))) - 1, math.ceil(math.log10(max(numbers))) + 1)
    steps = [m * 10.0**power for power in powers for m in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step < min(numbers))
    last = min(index for index, step in enumerate(steps) if step > max(numbers))
    return Axis(label, steps[first], steps[last], steps[first : last + 1], math.log10)


def rate_axis(label: str, low: float, high: float) -> Axis:
    """Returns an axis of error rates on the probit scale, on which normal scores give straight lines."""
    ticks = [rate for rate in RATES if low <= rate <= high]
    return Axis(label, low, high, ticks, NormalDist().inv_cdf, lambda rate: f"{100 * rate:g}")


def drawing(height: float, parts: Iterable[str], about: str) -> str:
    """Returns an SVG element; ``about`` says in words what it shows, for those who do not see it."""
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(about)}">\n{body}\n</svg>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """Returns a piece of text at a place in the drawing."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def _series(index: int) -> str:
    return f"s{index % COLOURS}"


class Plot:
    """A frame with two axes that lines, areas and points are put into."""

    def __init__(self, x: Axis, y: Axis, height: int = 320) -> None:
        self.x, self.y, self.height = x, y, height
        self.parts = self._grid()
        self.points: list[tuple[float, float]] = []  # where they lie in the drawing, as numbers do
        self.numbers: list[tuple[float, float]] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns where a point of the data lies in the drawing."""
        across, up = WIDTH - LEFT - RIGHT, self.height - TOP - BOTTOM
        return LEFT + across * self.x.place(x), self.height - BOTTOM - up * self.y.place(y)

    def _grid(self) -> list[str]:
        parts = []
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        for value in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
            parts.append(text(x, bottom + 15, self.x.text(value), "tick", "middle"))
        for value in self.y.ticks:
            _, y = self.at(self.x.low, value)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
            parts.append(text(LEFT - 6, y + 4, self.y.text(value), "tick", "end"))
        parts.append(text((LEFT + right) / 2, self.height - 8, self.x.label, "axis", "middle"))
        middle = (TOP + bottom) / 2
        turned = text(0, 0, self.y.label, "axis", "middle")
        parts.append(f'<g transform="translate(12 {middle:.1f}) rotate(-90)">{turned}</g>')
        return parts

    def line(self, points: Iterable[tuple[float, float]], css: str) -> None:
        """Draws a line through points; ``css`` names its colour, such as s0."""
        path = "L".join("{:.1f} {:.1f}".format(*self.at(*point)) for point in points)
        self.parts.append(f'<path class="line {css}" d="M{path}"/>')

    def area(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """Fills what lies between a line and the x axis."""
        foot = [(points[-1][0], self.y.low), (points[0][0], self.y.low)]
        path = "L".join("{:.1f} {:.1f}".format(*self.at(*point)) for point in [*points, *foot])
        self.parts.append(f'<path class="area {css}" d="M{path}Z"/>')

    def dot(self, x: float, y: float, css: str, about: str = "", radius: float = 2) -> None:
        """Draws a point, with words that a pointer brings up."""
        across, down = self.at(x, y)
        self.points.append((across, down))
        tip = f"<title>{escape(about)}</title>" if about else ""
        self.parts.append(
            f'<circle class="dot {css}" cx="{across:.1f}" cy="{down:.1f}" r="{radius:g}">{tip}</circle>'
        )

    def number(self, x: float, y: float, value: int) -> None:
        """Writes a number beside a point, on the side farthest from others and clear of other numbers."""
        place = self.at(x, y)
        others = [point for point in self.points if point != place]
        reach = NUMBER_AWAY + DIGIT / 2 * (len(str(value)) - 1)
        ways = ((reach, -8), (-reach, 8), (-reach, -8), (reach, 8), (0, -13), (0, 13))
        sides = [(place[0] + right, place[1] + down) for right, down in ways]
        free = [side for side in sides if self._is_free(*side)]
        best = max(free or sides, key=lambda side: min([FAR, *(math.dist(side, point) for point in others)]))
        self.numbers.append(best)
        self.parts.append(text(best[0], best[1] + 4, str(value), "note", "middle"))

    def _is_free(self, x: float, y: float) -> bool:
        inside = DIGIT < x < WIDTH - DIGIT and y > DIGIT
        return inside and all(abs(x - other[0]) > 14 or abs(y - other[1]) > 11 for other in self.numbers)

    def svg(self, about: str) -> str:
        """Returns the drawing."""
        return drawing(self.height, self.parts, about)


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: a name, figures in words, and how far the bar reaches.

    Attributes:
        name: Above the bar, to the left.
        figures: Above the bar, to the right.
        value: Where the bar ends.
        spread: Further values that a thin line reaches to, with a mark at each.
        series: Which colour.
    """

    name: str
    figures: str
    value: float
    spread: tuple[float, ...] = ()
    series: int = 0


def bar_chart(bars: Sequence[Bar], about: str) -> str:
    """Returns bars from zero below one another, each under its name, on one scale."""
    longest = max(max((bar.value, *bar.spread)) for bar in bars) or 1.0
    parts = []
    for index, bar in enumerate(bars):
        top = index * BAR_ROW
        parts.append(text(0, top + 14, bar.name, "name"))
        parts.append(text(WIDTH, top + 14, bar.figures, "figures", "end"))
        width, y = WIDTH * bar.value / longest, top + 21
        parts.append(f'<rect class="track" x="0" y="{y}" width="{WIDTH}" height="9" rx="2"/>')
        parts.append(
            f'<rect class="bar {_series(bar.series)}" x="0" y="{y}" width="{width:.1f}" height="9" rx="2"/>'
        )
        if bar.spread:
            end = WIDTH * max(bar.spread) / longest
            parts.append(f'<path class="whisker" d="M{width:.1f} {y + 4.5}H{end:.1f}"/>')
        for value in bar.spread:
            x = min(WIDTH * value / longest, WIDTH - 1)
            parts.append(f'<path class="whisker" d="M{x:.1f} {y}v9"/>')
    return drawing(len(bars) * BAR_ROW, parts, about)


@dataclass(frozen=True)
class Ridge:
    """A row of a chart of distributions: a name, figures in words, and the values."""

    name: str
    figures: str
    values: Sequence[float]


def ridge_chart(ridges: Sequence[Ridge], axis: Axis, about: str) -> str:
    """Returns histograms below one another over one axis, each as high as its fullest bin."""
    across = WIDTH - 2 * RIDGE_SIDE
    bottom = len(ridges) * RIDGE_ROW
    parts = []
    for value in axis.ticks:
        x = RIDGE_SIDE + across * axis.place(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {RIDGE_TOP}V{bottom}"/>')
        parts.append(text(x, bottom + 15, axis.text(value), "tick", "middle"))
    parts.append(text(WIDTH / 2, bottom + 32, axis.label, "axis", "middle"))
    for index, ridge in enumerate(ridges):
        top = index * RIDGE_ROW
        parts.append(text(0, top + 14, ridge.name, "name"))
        parts.append(text(WIDTH, top + 14, ridge.figures, "figures", "end"))
        shares = _bins(ridge.values, axis)
        foot, height = top + RIDGE_ROW, RIDGE_ROW - RIDGE_TOP - 4
        steps = (f"V{foot - height * share:.1f}h{across / BINS:.3f}" for share in shares)
        parts.append(f'<path class="ridge" d="M{RIDGE_SIDE} {foot}{"".join(steps)}V{foot}Z"/>')
    return drawing(bottom + BOTTOM, parts, about)


def _bins(values: Sequence[float], axis: Axis) -> list[float]:
    """Returns how full each bin of an axis is, as a share of the fullest."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(BINS * axis.place(value)), BINS - 1)] += 1
    return [count / max(counts) for count in counts]
