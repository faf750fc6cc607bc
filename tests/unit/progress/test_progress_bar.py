"""Test what progress bars draw on terminals, in notebooks and in log files, and when."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.progress import bar as progress
from sqlquarry.progress.bar import ProgressBar, phase
from sqlquarry.progress.workload import Workload

HOSTILE = "[red]a[/red][link=http://x]b\x1b[2J\x9b1m\u202ec<script>x()</script>"
SHOWN = r"[red]a[/red][link=http://x]b\u{1b}[2J\u{9b}1m\u{202e}c<script>x()</script>"


def timeless(text: str) -> list[str]:
    """Return the lines without their times, which depend on the machine."""
    return re.sub(r",? +(about )?\d+ s( left)?", "", text).splitlines()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Displays(list[dict[str, str]]):
    """The displays of a notebook, each with its last content, and the number of updates of each."""

    def __init__(self) -> None:
        self.updates: list[int] = []

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        place = len(self)
        self.append(content)
        self.updates.append(0)

        def update(content: dict[str, str], *, raw: bool) -> None:
            assert raw
            self[place] = content
            self.updates[place] += 1

        return SimpleNamespace(update=update)


@pytest.fixture
def notebook(monkeypatch) -> Displays:
    """Install a fake IPython that looks like that of a kernel."""
    displays = Displays()
    for name, content in {
        "IPython": {"get_ipython": lambda: SimpleNamespace(kernel=object())},
        "IPython.display": {"display": displays.display},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return displays


@pytest.fixture(autouse=True)
def frequent_lines(monkeypatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.05)


@given(st.integers(2, 300), st.floats(0.01, 5000), st.data())
def test_the_time_left_follows_from_the_length_of_steps(steps: int, each_s: float, data: st.DataObject) -> None:
    clock = Clock()
    work = Workload("training", steps, unit="step", clock=clock)
    done_before, first_s = data.draw(st.integers(0, steps - 2)), data.draw(st.floats(0.01, 5000))
    done = data.draw(st.integers(done_before + 2, steps))
    work.resume(done_before)
    assert work.remaining_s is None
    clock.now = first_s  # the first step compiles
    work.update(done_before + 1)
    assert work.remaining_s == pytest.approx(first_s * (steps - done_before - 1))
    for step in range(done_before + 2, done + 1):
        clock.now += each_s
        work.update(step)
    assert work.remaining_s == pytest.approx((steps - done) * each_s)
    if done < steps:  # the time left decreases while the next step runs
        clock.now += each_s / 2
        assert work.remaining_s == pytest.approx((steps - done - 0.5) * each_s)


def test_the_time_left_follows_a_machine_that_becomes_slower() -> None:
    clock = Clock()
    work = Workload("training", 1000, clock=clock)
    for step in range(1, 201):
        clock.now += 1.0 if step <= 100 else 4.0
        work.update(step)
    assert 3.3 * 800 < work.remaining_s < 4 * 800  # the mean over all steps is 2.5 s


def test_the_time_left_includes_the_wait_for_a_batch_of_answers() -> None:
    clock = Clock()
    work = Workload("generate", 64, clock=clock)
    clock.now = 115.0
    for done in range(1, 33):
        clock.now += 0.01
        work.update(done)
    assert work.remaining_s == pytest.approx(115, rel=0.05)


@pytest.mark.parametrize(
    ("start", "done", "seconds", "line"),
    [
        (partial(Workload, "training", 240, unit="step"), 0, 30, "training: step 0/240, 30 s"),
        (partial(Workload, "merging", 16e9, unit="byte"), 4e9, 20,
         "merging: 4.0 GB/16.0 GB, 200 MB/s, 20 s, about 1 min 0 s left"),
        (partial(Workload, "judging", 1200), 600, 7200, "judging: 600/1,200, 2 h 00 min, about 2 h 00 min left"),
        (partial(Workload, "import job", 600, unit="second", note="5 to 10 min expected"), 90, 90,
         "import job: 5 to 10 min expected, 1 min 30 s"),
        (partial(Workload, "loading", None), 0, 61, "loading: 1 min 1 s"),
        (partial(Workload, "job", None, unit="step", note="Training"), 3, 5, "job: step 3, Training, 5 s"),
    ],
)  # fmt: skip
def test_a_line_shows_amount_speed_and_time(
    start: Callable[..., Workload], done: float, seconds: float, line: str
) -> None:
    clock = Clock()
    work = start(clock=clock)
    clock.now = seconds
    work.update(done)
    assert work.line() == line


def test_a_log_gets_plain_lines_even_while_a_step_takes_long(stderr_of) -> None:
    log_file = stderr_of(terminal=False)
    with phase("loading the base"):
        pass
    with ProgressBar("training", 240, unit="step", note="compiling") as bar:
        wait_for(lambda: len(log_file.getvalue().splitlines()) >= 4)
        bar.update(240, note="loss 0.125")
    lines = timeless(log_file.getvalue())
    assert lines[:2] == ["loading the base", "training: step 0/240, compiling"]
    assert lines.count("training: step 0/240, compiling") >= 3
    assert lines[-1] == "training: step 240/240, loss 0.125"
    assert not re.search(r"[\r\x1b]", log_file.getvalue())


def test_nothing_is_written_after_the_work_has_ended(stderr_of) -> None:
    log_file = stderr_of(terminal=False)
    with ProgressBar("judging", 2):
        pass
    before = log_file.getvalue()
    time.sleep(0.2)
    assert log_file.getvalue() == before


def test_the_last_line_reports_a_failure(stderr_of) -> None:
    log_file = stderr_of(terminal=False)
    bar = ProgressBar("training", 9, unit="step")
    with pytest.raises(KeyboardInterrupt), bar:
        raise KeyboardInterrupt(bar.update(4))
    assert timeless(log_file.getvalue())[-1] == "training: step 4/9, stopped"


def test_lines_go_through_logging_if_it_is_configured(stderr_of, caplog) -> None:
    log_file = stderr_of(terminal=False)
    caplog.set_level(logging.INFO)
    with ProgressBar("judging", 2):
        pass
    assert [timeless(line) for line in (caplog.messages[0], caplog.messages[-1])] == [["judging: 0/2"]] * 2
    assert log_file.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("off", ["show", "RANK"])
def test_a_hidden_bar_draws_nothing(off: str, terminal: bool, stderr_of, notebook, monkeypatch) -> None:
    if terminal:
        monkeypatch.delitem(sys.modules, "IPython")
    written = stderr_of(terminal=terminal)
    if off == "RANK":
        monkeypatch.setenv("RANK", "1")  # only rank 0 draws
    with ProgressBar("upload", 2, show=off != "show") as bar:
        bar.advance()
        bar.print("line")
        assert not bar.is_redrawn
    assert (written.getvalue(), notebook) == ("", [])


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError("gone"), ValueError("I/O operation on closed file"), None])
def test_a_closed_terminal_ends_only_the_drawing(error, terminal: bool, stderr_of, monkeypatch) -> None:
    written, stdout = stderr_of(terminal=terminal), sys.stdout
    calls = []

    def write(text: str) -> int:
        calls.append(text)
        raise error

    if error is None:
        monkeypatch.setattr(sys, "stderr", None)  # as under pythonw, or with 2>&-
    else:
        written.write = write
    with ProgressBar("training", 3, unit="step") as bar:
        for step in (1, 2, 3):
            time.sleep(0.25)
            bar.update(step)
    assert bar.done == 3
    assert len(calls) <= 5  # the first attempt and the release of the terminal, but no call for each refresh
    assert sys.stdout is stdout


def test_a_terminal_shows_bars_and_escapes_control_characters(stderr_of) -> None:
    written = stderr_of(terminal=True)
    with ProgressBar(f"upload to {HOSTILE}", 2) as bar:
        bar.update(1, note=HOSTILE)
        bar.print(HOSTILE.replace("\x1b", "").replace("\x9b", "").replace("\u202e", ""))
    shown = written.getvalue()
    assert f"upload to {SHOWN}" in shown
    assert re.search(rf"━.* 1/2 +{re.escape(SHOWN)} +\d+ s", shown)
    assert [sign for sign in ("\x1b[2J", "\x9b", "\u202e") if sign in shown] == []


def test_bars_within_a_bar_share_its_display_and_disappear(stderr_of, notebook, monkeypatch) -> None:
    with ProgressBar("judging", 4) as outer:
        for _ in range(2):
            with ProgressBar("generate", 2):
                wait_for(lambda: "generate: 0/2" in notebook[0]["text/plain"])
            wait_for(lambda: "generate" not in notebook[0]["text/plain"])
        outer.update(4)
    assert [timeless(content["text/plain"]) for content in notebook] == [["judging: 4/4"]]
    monkeypatch.delitem(sys.modules, "IPython")
    written = stderr_of(terminal=True)
    with ProgressBar("judging", 4), ProgressBar("generate", 2):
        wait_for(lambda: "generate" in written.getvalue())
    assert "generate" not in written.getvalue().rpartition("judging")[2]


def test_output_that_goes_to_a_file_is_not_redirected(stderr_of, monkeypatch) -> None:
    written, stdout = stderr_of(terminal=True), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    with ProgressBar("judging", 4):
        print("a result")
    assert stdout.getvalue() == "a result\n"
    assert "a result" not in written.getvalue()


def test_a_notebook_has_one_display_that_changes_at_most_twice_a_second(notebook, stderr_of) -> None:
    written = stderr_of(terminal=False)
    with phase("a short one"):
        pass
    with ProgressBar(f"training {HOSTILE}", 1000, unit="step") as bar:
        assert bar.is_redrawn
        for step in range(1000):
            time.sleep(0.0012)
            bar.update(step + 1, note="loss 1.5")
    (content,), (updates,) = notebook, notebook.updates
    assert 2 <= updates <= 2 * bar.elapsed_s + 1  # one more at the end
    assert timeless(content["text/plain"]) == [f"training {SHOWN}: step 1,000/1,000, loss 1.5"]
    assert '<progress value="1000" max="1000"' in content["text/html"]
    assert "<script>" not in content["text/html"]
    assert written.getvalue() == ""


def test_work_that_ends_at_once_is_not_drawn(stderr_of, notebook, monkeypatch) -> None:
    log_file = stderr_of(terminal=False)
    with ProgressBar("generate", 1, brief=True) as bar:
        bar.advance()
    assert notebook == []
    monkeypatch.delitem(sys.modules, "IPython")
    with ProgressBar("generate", 1, brief=True) as bar:
        bar.advance()
    assert log_file.getvalue() == ""


def test_ipython_on_a_terminal_is_a_terminal(notebook, stderr_of) -> None:
    sys.modules["IPython"].get_ipython = SimpleNamespace  # type: ignore[attr-defined] - the stand-in
    written = stderr_of(terminal=True)
    with ProgressBar("judging", 4):
        pass
    assert "judging" in written.getvalue()
    assert notebook == []
