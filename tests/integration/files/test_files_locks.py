"""Test that a directory has one writer at a time, and that the lock of a killed writer is released."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sqlquarry.errors import OutputInUseError
from sqlquarry.files.locks import LOCK_FILE, only_writer

_HOLDER = """
import sys, time
from pathlib import Path
from sqlquarry.files.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path / "out")], stdout=-1, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_the_error_for_a_second_writer_names_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    owner = rf"{re.escape(str(tmp_path / 'out'))} .*\b{holder.pid}\b.*\b{re.escape(socket.gethostname())}\b"
    with pytest.raises(OutputInUseError, match=owner), only_writer(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_FILE).is_file()
    with only_writer(tmp_path / "out"):  # at once
        assert str(os.getpid()) in (tmp_path / "out" / LOCK_FILE).read_text()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_writer_can_wait_for_another_one(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    def write() -> bool:
        with only_writer(tmp_path / "out", wait=True):
            return holder.poll() is not None

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(write)
        try:
            with pytest.raises(TimeoutError):
                ended.result(timeout=0.5)
        finally:
            holder.kill()
            holder.wait()
        assert ended.result(30)


def test_a_directory_that_stays_empty_is_removed_again(tmp_path: Path) -> None:
    with only_writer(tmp_path / "new" / "deep"):
        with pytest.raises(OutputInUseError), only_writer(tmp_path / "new" / "deep"):
            pass
        assert (tmp_path / "new" / "deep").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "kept").mkdir()
    with only_writer(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept").is_dir()


def test_a_lock_file_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate an owner who removes its file after this writer opens it and before this writer locks it."""
    import fcntl

    stock, opened = fcntl.flock, []

    def flock(file: object, operation: int) -> None:
        stock(file, operation)  # type: ignore[arg-type] - any open file will do
        if not opened:
            opened.append(file)
            (tmp_path / LOCK_FILE).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_writer(tmp_path):
        assert (tmp_path / LOCK_FILE).is_file()
        with pytest.raises(OutputInUseError), only_writer(tmp_path):
            pass


def test_a_folder_that_another_writer_removes_is_created_again(tmp_path: Path) -> None:
    def write_nothing() -> int:
        written = 0
        for _ in range(300):
            with suppress(OutputInUseError), only_writer(tmp_path / "new" / "out"):
                written += 1
        return written

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: write_nothing(), range(4)))


def test_a_lock_file_that_is_a_broken_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "missing" / "file")
    with pytest.raises(FileNotFoundError), only_writer(tmp_path):
        pass
