"""A picture of a run: loss, evaluation loss and learning rate over its steps, as an SVG that suits light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import write_atomically
from sqlquarry.files.metadata import parse_json

_WIDTH, _LEFT, _RIGHT = 760, 62, 742
_LOSS_TOP, _LOSS_BOTTOM = 58, 300
_RATE_TOP, _RATE_BOTTOM = 332, 384
_HEIGHT = 420
_POINTS = 400  # more than that many steps are averaged: a screen shows no more
_SMOOTHED_SHARE = 0.05  # of all steps: what the smoothed line averages around each
_DECADES = 1e4  # what a logarithmic axis spans at most; below it the line runs along the bottom
Points = list[tuple[float, float]]

_STYLE = """
:root { --ink: #1f2328; --soft: #656d76; --grid: #d8dee4; --raw: #9ec5f4; --loss: #0b62c4; --eval: #c2410c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --grid: #30363d; --raw: #2d4f78; --loss: #6cb1ff; --eval: #ff9b5e }
}
text { font: 12px system-ui, sans-serif; fill: var(--soft) }
.title { font-size: 15px; font-weight: 600; fill: var(--ink) }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) { .paper { fill: #0d1117 } }
.grid { stroke: var(--grid) }
polyline, line { fill: none; stroke-linejoin: round }
.raw { stroke: var(--raw) } .rate { stroke: var(--soft); stroke-width: 1.5 }
.loss { stroke: var(--loss); stroke-width: 2 } .eval { stroke: var(--eval); stroke-width: 2 }
circle.loss { fill: var(--loss) } circle.eval { fill: var(--eval) }
"""


def write_loss_plot(log: Path, target: Path) -> None:
    """Draw `training_log.jsonl` as an SVG file; nothing is written where no step was logged.

    The loss has a logarithmic axis where it falls by more than four times.
    """
    lines = log.read_text(encoding="utf-8").splitlines()
    entries = [parse_json(line, log.name, lenient=True) for line in lines if line.strip()]
    if entries:
        write_atomically(target, loss_plot(entries).encode())


def loss_plot(entries: Sequence[dict[str, Any]]) -> str:
    """The SVG of log entries (`step`, `loss`, `learning_rate`, now and then `eval_loss`)."""
    loss = [(float(entry["step"]), float(entry["loss"])) for entry in entries]
    judged = [(float(entry["step"]), float(entry["eval_loss"])) for entry in entries if "eval_loss" in entry]
    rate = [(float(entry["step"]), float(entry["learning_rate"])) for entry in entries]
    smooth = _smoothed(loss)
    first, last = loss[0][0], loss[-1][0]
    values = [value for _, value in (*loss, *judged)]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high > 4 * low
    if logarithmic:
        low = max(low, high / _DECADES)
    low, ticks = _axis(low, high, logarithmic=logarithmic)
    high = max(high, ticks[-1])

    def place(points: Points) -> str:
        return _polyline(points, (first, last), (low, high), (_LOSS_TOP, _LOSS_BOTTOM), logarithmic=logarithmic)

    top_rate = max(value for _, value in rate) or 1.0
    drawn = [
        # A paper of its own: the page around it may be bright where the reader's system is dark.
        '<rect class="paper" width="100%" height="100%"/>',
        _text(_LEFT, 24, "Training loss", css="title"),
        *_legend(judged, smooth),
        *_grid(ticks, low, high, logarithmic=logarithmic),
        f'<polyline class="raw" points="{place(_thinned(loss))}"/>',
        f'<polyline class="loss" points="{place(_thinned(smooth))}"/>',
    ]
    if judged:
        drawn.append(f'<polyline class="eval" points="{place(judged)}"/>')
    for css, marked in (("loss", smooth[-1:]), ("eval", judged)):
        for x, _, y in (point.partition(",") for point in place(marked).split()):
            drawn.append(f'<circle class="{css}" cx="{x}" cy="{y}" r="3"/>')
    rate_line = _polyline(_thinned(rate), (first, last), (0, top_rate), (_RATE_TOP, _RATE_BOTTOM))
    drawn += [
        f'<line class="grid" x1="{_LEFT}" y1="{_RATE_BOTTOM}" x2="{_RIGHT}" y2="{_RATE_BOTTOM}"/>',
        f'<polyline class="rate" points="{rate_line}"/>',
        _text(_LEFT - 8, _RATE_TOP + 4, f"{top_rate:.1e}", anchor="end"),
        _text(_LEFT - 8, _RATE_BOTTOM + 4, "0", anchor="end"),
        _text(_LEFT, _RATE_TOP - 8, "learning rate"),
        *_steps(first, last),
    ]
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="Training loss over {last:.0f} steps, ending at {smooth[-1][1]:.3g}">\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _legend(judged: Points, smooth: Points) -> Iterable[str]:
    x = _LEFT
    for css, words in (
        ("loss", f"loss, smoothed ({smooth[-1][1]:.3g} at the end)"),
        ("eval", f"evaluation loss ({judged[-1][1]:.3g})" if judged else ""),
    ):
        if words:
            yield f'<line class="{css}" x1="{x}" y1="40" x2="{x + 18}" y2="40"/>'
            yield _text(x + 24, 44, words)
            x += 44 + 7 * len(words)


def _grid(ticks: Sequence[float], low: float, high: float, *, logarithmic: bool) -> Iterable[str]:
    for tick in ticks:
        y = _y(tick, (low, high), (_LOSS_TOP, _LOSS_BOTTOM), logarithmic=logarithmic)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
        yield _text(_LEFT - 8, round(y + 4), f"{tick:g}", anchor="end")


def _steps(first: float, last: float) -> Iterable[str]:
    _, ticks = _axis(first, last, logarithmic=False)
    for tick in (tick for tick in ticks if first <= tick <= last and tick == int(tick)):
        x = _x(tick, (first, last))
        yield _text(round(x), _RATE_BOTTOM + 18, f"{tick:,.0f}", anchor="middle")
    yield _text(_RIGHT, _RATE_BOTTOM + 32, "step", anchor="end")


def _axis(low: float, high: float, *, logarithmic: bool) -> tuple[float, list[float]]:
    """Where the axis begins, and round numbers along it."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [one * 10.0**power for power in powers for one in (1, 2, 5)]
        inside = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1]
        return min(low, inside[0]) if inside else low, inside or [low, high]
    span = max(high - low, abs(high) / 1e3, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(one * power for one in (1, 2, 5, 10) if span / (one * power) <= 6)
    begin = math.floor(low / step) * step
    return begin, [begin + step * index for index in range(math.ceil((high - begin) / step - 1e-9) + 1)]


def _smoothed(points: Points) -> Points:
    """The mean of the steps around each step, so that the line does not lag behind."""
    reach = max(2, round(len(points) * _SMOOTHED_SHARE / 2))
    smooth = []
    for index, (x, _) in enumerate(points):
        around = [y for _, y in points[max(0, index - reach) : index + reach + 1]]
        smooth.append((x, sum(around) / len(around)))
    return smooth


def _thinned(points: Points) -> Points:
    size = math.ceil(len(points) / _POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _polyline(
    points: Points,
    steps: tuple[float, float],
    values: tuple[float, float],
    place: tuple[int, int],
    *,
    logarithmic: bool = False,
) -> str:
    return " ".join(f"{_x(x, steps):.1f},{_y(y, values, place, logarithmic=logarithmic):.1f}" for x, y in points)


def _x(step: float, steps: tuple[float, float]) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (step - steps[0]) / max(1.0, steps[1] - steps[0])


def _y(value: float, values: tuple[float, float], place: tuple[int, int], *, logarithmic: bool = False) -> float:
    low, high = values
    if logarithmic:
        low, high, value = math.log(low), math.log(high), math.log(max(value, low))
    share = (value - low) / ((high - low) or 1.0)
    return place[1] - (place[1] - place[0]) * min(1.0, max(0.0, share))


def _text(x: float, y: float, words: str, *, anchor: str = "start", css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{kind}>{words}</text>'
