"""Check `Database` on a real MariaDB server. Run by hand: python tests/tools/mariadb_database.py [ROOT]

It needs pymysql and Debian's package mariadb-server-core, either installed or unpacked into the folder ROOT
(apt-get download mariadb-server-core libaio1 liburing2, then dpkg -x each of them). It takes about 10 seconds.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest

import sqlquarry as sq
from sqlquarry.errors import ConfigError, DatabaseError

SETUP = """
CREATE DATABASE shop CHARACTER SET utf8mb4; USE shop;
CREATE TABLE customer (id int unsigned PRIMARY KEY AUTO_INCREMENT, `größe` varchar(20) NOT NULL COMMENT 'free text',
    `order` enum('a', 'b''c'), next int GENERATED ALWAYS AS (id + 1) VIRTUAL, email varchar(50), made datetime,
    flags set('x', 'y')) COMMENT = 'people';
CREATE TABLE item (o int unsigned, n int, PRIMARY KEY (o, n), FOREIGN KEY (o) REFERENCES customer (id));
CREATE VIEW totals AS SELECT o, count(*) AS n FROM item GROUP BY o;
CREATE TABLE secret (a int);
INSERT INTO customer (`größe`, `order`, email, made)
    SELECT concat('S', seq % 3), 'a', concat(seq, '@mail.org'), '2020-01-01 10:00:00' FROM seq_1_to_30000;
INSERT INTO item SELECT seq, seq % 3 FROM seq_1_to_50;
CREATE USER reader@'%' IDENTIFIED BY 's3cr@t/word';
GRANT SELECT ON shop.customer TO reader@'%'; GRANT SELECT ON shop.item TO reader@'%';
GRANT SELECT ON shop.totals TO reader@'%';
ANALYZE TABLE customer; ANALYZE TABLE item
"""
TEXT = """
CREATE TABLE customer /* people */ (id int(10) unsigned PRIMARY KEY,
`größe` varchar(20) /* free text; 'S0', 'S1', 'S2' */,
`order` enum('a','b''c') /* 'a', 'b''c' */, next int(11), email varchar(50), made datetime /* '2020-01-01 10:00:00' */,
flags set('x','y'));
CREATE TABLE item (o int(10) unsigned REFERENCES customer (id), n int(11), PRIMARY KEY (o, n));
CREATE TABLE totals (o int(10) unsigned, n bigint(21));
""".strip().replace(",\n", ", ")


@contextmanager
def server(root: Path, folder: Path) -> Iterator[int]:
    """Start a server and yield its port."""
    share = root / "usr/share/mysql"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
    command = [
        *(root / "usr/sbin/mariadbd", "--no-defaults", f"--datadir={folder}", f"--lc-messages-dir={share}"),
        *("--user=root", "--innodb-buffer-pool-size=16M"),
    ]
    tables = "".join((share / f"mysql_system_tables{end}.sql").read_text() for end in ("", "_data"))
    boot = f"create database mysql;\nuse mysql;\n{tables}"
    subprocess.run([*command, "--bootstrap"], input=boot, text=True, env=environment, check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]
    process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.DEVNULL)
    try:
        with connection(folder / "socket") as admin, admin.cursor() as cursor:
            for statement in SETUP.split(";\n"):
                for part in statement.split("; "):
                    cursor.execute(part)
            admin.commit()
        yield port
    finally:
        process.terminate()
        process.wait()


def connection(path: Path) -> pymysql.Connection:
    for _ in range(100):
        try:
            return pymysql.connect(unix_socket=str(path), user="root")
        except pymysql.err.OperationalError:
            time.sleep(0.1)
    raise TimeoutError("the server does not start")


def refused(make: Callable[[], object], *words: str) -> None:
    with pytest.raises((ConfigError, DatabaseError)) as caught:
        make()
    error = caught.value
    assert [word for word in words if word not in str(error)] == [], error
    assert "s3cr" not in f"{error} {error.__context__} {error.__cause__}"


def check(port: int) -> None:
    url = f"mysql+pymysql://reader:s3cr%40t%2Fword@127.0.0.1:{port}/shop"
    database = sq.Database(url)
    assert database.schema_text(values=True) == TEXT, database.schema_text(values=True)
    assert 25_000 < (database.tables["customer"].rows or 0) < 35_000
    assert database.tables["customer"].by_name["next"].generated
    assert database.tables["totals"].is_view
    assert database.notes == (), database.notes
    assert sq.Database(url, allow_unchecked_servers=True).run("SELECT count(*) FROM customer").rows == [(30_000,)]
    refused(lambda: database.run("SELECT 1"), "allow_unchecked_servers")
    refused(lambda: sq.Database(url.replace("s3cr", "wrong")), "1045")
    refused(lambda: sq.Database(url.replace("/shop", "/nowhere")), "1044")
    refused(lambda: sq.Database(url, schema_names=["shp"]), "'shp'", "'shop'")
    refused(lambda: sq.Database(url.replace(str(port), "1")), "2003")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, server(Path(sys.argv[1] if sys.argv[1:] else "/"), Path(name)) as free:
        check(free)
    print("Database reads MariaDB")
