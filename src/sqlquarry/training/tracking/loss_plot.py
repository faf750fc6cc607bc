"""Draw loss, evaluation loss and learning rate of a run over its steps, as an SVG for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from sqlquarry.files.metadata import parse_json
from sqlquarry.files.writing import write_atomically
from sqlquarry.training.tracking.log_entry import LogEntry

_POINTS = 400  # maximum number of points. More steps are averaged, because a screen cannot show them
_SMOOTHED_SHARE = 0.05  # share of all steps over which the smoothed line averages
_DECADES = 1e4  # maximum ratio on a logarithmic axis. Smaller values are drawn at the bottom
Points = list[tuple[float, float]]

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 420" width="760" role="img"
 aria-label="Training loss over {{ last }} steps, ending at {{ end }}">
<style>
:root { --ink: #1f2328; --soft: #656d76; --grid: #d8dee4; --raw: #9ec5f4; --loss: #0b62c4; --eval: #c2410c }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --grid: #30363d; --raw: #2d4f78; --loss: #6cb1ff; --eval: #ff9b5e }
  .paper { fill: #0d1117 }
}
text { font: 12px system-ui, sans-serif; fill: var(--soft) }
.title { font-size: 15px; font-weight: 600; fill: var(--ink) }
.left { text-anchor: end } .middle { text-anchor: middle } .grid { stroke: var(--grid) }
polyline, line { fill: none; stroke-linejoin: round }
.raw { stroke: var(--raw) } .rate { stroke: var(--soft); stroke-width: 1.5 }
.loss { stroke: var(--loss); stroke-width: 2 } .eval { stroke: var(--eval); stroke-width: 2 }
circle.loss { fill: var(--loss) } circle.eval { fill: var(--eval) }
</style>
{# The picture has its own background, because a page may be bright although the reader's system is dark. #}
<rect class="paper" width="100%" height="100%"/>
<text class="title" x="62" y="24">Training loss</text>
{% for css, x, words in legend %}
<line class="{{ css }}" x1="{{ x }}" y1="40" x2="{{ x + 18 }}" y2="40"/><text x="{{ x + 24 }}" y="44">{{ words }}</text>
{% endfor %}
{% for y, words in values %}
<line class="grid" x1="62" y1="{{ y }}" x2="742" y2="{{ y }}"/>
<text class="left" x="54" y="{{ y + 4 }}">{{ words }}</text>
{% endfor %}
<line class="grid" x1="62" y1="384" x2="742" y2="384"/><text class="left" x="54" y="388">0</text>
<text x="62" y="324">learning rate</text><text class="left" x="54" y="336">{{ top_rate }}</text>
{% for css, points in lines %}
<polyline class="{{ css }}" points="{% for x, y in points %}{{ x }},{{ y }} {% endfor %}"/>
{% endfor %}
{% for css, points in dots %}{% for x, y in points %}
<circle class="{{ css }}" cx="{{ x }}" cy="{{ y }}" r="3"/>
{% endfor %}{% endfor %}
{% for x, words in steps %}
<text class="middle" x="{{ x }}" y="402">{{ words }}</text>
{% endfor %}
<text class="left" x="742" y="416">step</text>
</svg>
"""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A mapping of values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: int
    end: int
    logarithmic: bool = False

    def pixel(self, value: float) -> float:
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0), 1)


def write_loss_plot(log: Path, target: Path) -> None:
    """Draw `training_log.jsonl` as an SVG file. Write nothing if no step was logged."""
    lines = log.read_text(encoding="utf-8").splitlines()
    entries = [parse_json(line, log.name, lenient=True) for line in lines if line.strip()]
    if entries:
        write_atomically(target, loss_plot(entries).encode())


def loss_plot(entries: Sequence[LogEntry]) -> str:
    """Return the SVG of log entries. The axis of the loss is logarithmic if the loss spans more than a factor of 4."""
    loss = [(float(entry["step"]), float(entry["loss"])) for entry in entries]
    judged = [(float(entry["step"]), float(entry["eval_loss"])) for entry in entries if "eval_loss" in entry]
    rate = [(float(entry["step"]), float(entry["learning_rate"])) for entry in entries]
    smooth = _smoothed(loss)
    across = _Axis(loss[0][0], loss[-1][0], 62, 742)
    up, ticks = _value_axis([value for _, value in (*loss, *judged)])
    rates = _Axis(0, max(value for _, value in rate) or 1.0, 384, 332)

    def placed(points: Points, axis: _Axis) -> Points:
        return [(across.pixel(x), axis.pixel(y)) for x, y in points]

    words = f"loss, smoothed ({smooth[-1][1]:.3g} at the end)"
    legend = [("loss", 62, words)]
    if judged:
        legend.append(("eval", 62 + 44 + 7 * len(words), f"evaluation loss ({judged[-1][1]:.3g})"))
    lines = [("raw", placed(_thinned(loss), up)), ("loss", placed(_thinned(smooth), up)), ("eval", placed(judged, up))]
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(_SVG)
        .render(
            last=f"{loss[-1][0]:.0f}",
            end=f"{smooth[-1][1]:.3g}",
            legend=legend,
            values=[(up.pixel(tick), f"{tick:g}") for tick in ticks],
            top_rate=f"{rates.high:.1e}",
            lines=[*(line for line in lines if line[1]), ("rate", placed(_thinned(rate), rates))],
            dots=[("loss", placed(smooth[-1:], up)), ("eval", placed(judged, up))],
            steps=[(across.pixel(step), f"{step:,.0f}") for step in _whole_steps(across)],
        )
    )


def _value_axis(values: Sequence[float]) -> tuple[_Axis, list[float]]:
    """Return the axis of the losses and its tick values."""
    low, high = min(values), max(values)
    if low > 0 and high > 4 * low:
        low = max(low, high / _DECADES)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [one * 10.0**power for power in powers for one in (1, 2, 5)]
        ticks = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1] or [low, high]
        return _Axis(min(low, ticks[0]), max(high, ticks[-1]), 300, 58, logarithmic=True), ticks
    ticks = _round_numbers(low, high)
    return _Axis(ticks[0], max(high, ticks[-1]), 300, 58), ticks


def _whole_steps(axis: _Axis) -> list[float]:
    ticks = _round_numbers(axis.low, axis.high)
    return [tick for tick in ticks if axis.low <= tick <= axis.high and tick == int(tick)]


def _round_numbers(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, from at most `low` to at least `high`."""
    span = max(high - low, abs(high) / 1e3, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(one * power for one in (1, 2, 5, 10) if span / (one * power) <= 6)
    begin = math.floor(low / step) * step
    return [begin + step * index for index in range(math.ceil((high - begin) / step - 1e-9) + 1)]


def _smoothed(points: Points) -> Points:
    """Return the mean of the steps before and after each step, so that the line does not lag."""
    reach = max(2, round(len(points) * _SMOOTHED_SHARE / 2))
    around = [[y for _, y in points[max(0, index - reach) : index + reach + 1]] for index in range(len(points))]
    return [(x, sum(values) / len(values)) for (x, _), values in zip(points, around, strict=True)]


def _thinned(points: Points) -> Points:
    size = math.ceil(len(points) / _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
