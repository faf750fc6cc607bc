"""Start a throw-away PostgreSQL server for tests."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from programs import postgresql, postgresql_user

PASSWORD = "s3cr@t/word"


@contextlib.contextmanager
def throwaway_server() -> Iterator[str]:
    """Start a server on a free loopback port and stop it at the end.

    Yields the URL of its superuser without the name of a database.
    """
    programs, owner = postgresql(), postgresql_user()
    user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    (folder / "password").write_text(PASSWORD)
    if owner:
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, "-D", folder / "data", *arguments], check=True, cwd=folder,
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
