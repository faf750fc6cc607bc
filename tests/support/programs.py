"""Find the programs that some tests need and a machine may lack: Chromium and PostgreSQL.

A test skips and says why if its program is missing. With SQLQUARRY_REQUIRE_PROGRAMS=1, as in CI, it fails.
"""

import os
import pwd
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_CHROME_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
# Debian keeps the servers of several versions outside PATH, and so does Homebrew.
_POSTGRESQL = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin")


def chromium() -> str:
    """Return the path of Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", _CHROME_ON_MACOS)
    found = next(filter(None, map(shutil.which, names)), None)
    return found or _missing("Chromium is not installed (Debian: apt-get install chromium)")


def postgresql() -> Path:
    """Return the directory with PostgreSQL's initdb and pg_ctl, of the newest version that is installed."""
    debian_or_brew = (path for pattern in _POSTGRESQL for path in Path("/").glob(pattern.lstrip("/")))
    newest = sorted((path for path in debian_or_brew if (path / "initdb").exists()), key=_version)
    on_path = shutil.which("initdb")
    if newest:
        return newest[-1]
    return (
        Path(on_path).parent
        if on_path
        else _missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    )


def postgresql_user() -> pwd.struct_passwd | None:
    """Return the user who runs the server if the tests run as root, which PostgreSQL refuses; otherwise None."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return _missing("the tests run as root, PostgreSQL refuses that, and there is no user postgres to run it")


def _version(folder: Path) -> int:
    """Return 15 for /usr/lib/postgresql/15/bin and for /opt/homebrew/opt/postgresql@15/bin."""
    digits = folder.parent.name.rpartition("@")[2]
    return int(digits) if digits.isdigit() else 0


def _missing(reason: str) -> NoReturn:
    if os.environ.get("SQLQUARRY_REQUIRE_PROGRAMS"):
        pytest.fail(reason)
    pytest.skip(reason)
