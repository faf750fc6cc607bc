"""A throw-away PostgreSQL server for tests, from Debian's package."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "s3cr@t/word"


@contextlib.contextmanager
def throwaway_server() -> Iterator[str]:
    """Start a server on a free loopback port; yields its superuser's URL up to the database's name, stops it after.

    It refuses to run as root, so the package's own user runs it then.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.fail("PostgreSQL is not installed: run the tests with `make test`, or apt-get install postgresql")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    (folder / "password").write_text(PASSWORD)
    if user:
        owner = pwd.getpwnam("postgres")
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs[-1] / program, "-D", folder / "data", *arguments], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, **user)  # fmt: skip

    try:
        run("initdb", "--no-sync", "--auth=scram-sha-256", "--username=judge", "--encoding=UTF8", "--locale=C",
            f"--pwfile={folder / 'password'}")  # fmt: skip
        with socket.socket() as probe:  # only now: another test may take it
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off -k {folder}"
        run("pg_ctl", "--wait", "--options", options, "--log", str(folder / "log"), "start")
        try:
            yield f"postgresql://judge:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "--wait", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)
