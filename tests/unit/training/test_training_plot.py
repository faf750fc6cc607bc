"""The plot of a run is well-formed, stays inside its frame and shows the figures of the log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.training.tracking.loss_plot import loss_plot, write_loss_plot

SVG = "{http://www.w3.org/2000/svg}"


def entry(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": loss, "learning_rate": 1e-3 / step, **more}


def points_of(svg: str, css: str) -> list[tuple[float, float]]:
    line = next(node for node in ET.fromstring(svg).iter(f"{SVG}polyline") if node.get("class") == css)
    return [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]


def test_the_loss_falls_from_left_to_right_in_the_plot() -> None:
    svg = loss_plot([entry(step, 5 / step, **({"eval_loss": 0.2} if step == 30 else {})) for step in range(1, 31)])
    smooth = points_of(svg, "loss")
    assert len(smooth) == 30
    assert smooth[0][1] < smooth[-1][1]  # y grows downwards in SVG
    assert [x for x, _ in smooth] == sorted(x for x, _ in smooth)
    assert "evaluation loss (0.2)" in svg
    assert ">0.2<" in svg  # a tick of the logarithmic axis, because the loss falls by a factor of 30
    assert "prefers-color-scheme: dark" in svg


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30), st.integers(1, 10_000))
def test_nothing_leaves_the_frame(losses: list[float], first: int) -> None:
    svg = loss_plot([entry(first + index, loss) for index, loss in enumerate(losses)])
    frame = ET.fromstring(svg).get("viewBox")
    assert frame is not None
    _, _, width, height = map(float, frame.split())
    for css in ("raw", "loss", "rate"):
        for x, y in points_of(svg, css):
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert not re.search("nan|inf", svg)


def test_a_long_run_is_averaged_to_400_points() -> None:
    svg = loss_plot([entry(step, 1.0) for step in range(1, 20_001)])
    assert len(points_of(svg, "raw")) == 400
    assert len(svg) < 60_000


def test_the_plot_is_drawn_from_the_log(tmp_path: Path) -> None:
    log, picture = tmp_path / "training_log.jsonl", tmp_path / "loss.svg"
    log.write_text("")
    write_loss_plot(log, picture)
    assert not picture.exists()
    log.write_text("".join(json.dumps(entry(step, 2.0)) + "\n" for step in (1, 2)))
    write_loss_plot(log, picture)
    assert ET.fromstring(picture.read_text()).tag == f"{SVG}svg"
