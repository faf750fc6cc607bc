"""Find out which functions a query would call on a PostgreSQL server, before any part of it runs.

The text of a query does not show this. Operators, casts, views, row-level security and other names on the search path
call functions, too. So the server is asked to prepare the query and to send the rewritten tree, in which every function
has its OID. Preparing analyzes and rewrites a query, but it neither plans nor executes it. EXPLAIN is not an
alternative, because planning executes functions that are marked STABLE or IMMUTABLE. The tree is sent because of
debug_print_rewritten (https://www.postgresql.org/docs/current/runtime-config-logging.html), which any account may set,
also on a replica and in a READ ONLY transaction.

Three kinds of functions are allowed: the server's own functions unless they are VOLATILE or run text, functions in C of
the extensions listed here, and the functions that the user lists. All others are refused. Their bodies are not
inspected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, pq

from sqlquarry.errors import JudgingError
from sqlquarry.execution.engines.answers import forbidden, unknown_functions
from sqlquarry.execution.sandbox_child import Answer

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult
    from psycopg.rows import TupleRow

# Smaller OIDs belong to the server's own objects and are unique among these.
# https://www.postgresql.org/docs/current/system-catalog-initial-data.html
_FIRST_USER_OID = 16384
_HARMLESS_VOLATILE = (
    "random,random_normal,setseed,clock_timestamp,timeofday,gen_random_uuid,uuidv4,uuidv7,"
    "gen_random_bytes,gen_salt,uuid_generate_v1,uuid_generate_v1mc,uuid_generate_v4,"
    "pg_table_size,pg_relation_size,pg_indexes_size,pg_total_relation_size,pg_database_size,"
    "pg_lock_status,pg_sequence_last_value,pg_partition_tree,pg_partition_ancestors"
)
# Read and tested in the versions of PostgreSQL 15. Their functions in SQL are not included, because the names in such
# bodies are looked up on the search path of the caller. earth() is an exception: it is a constant that checks
# of a domain call.
_HARMLESS_EXTENSIONS = (
    "btree_gin,btree_gist,citext,cube,earthdistance,fuzzystrmatch,hstore,intarray,ltree,"
    "pg_trgm,pgcrypto,seg,unaccent,uuid-ossp"
)
# The server's functions that are VOLATILE, or that do more than compute although they are not VOLATILE. The latter read
# whole tables and views by name, take transaction ids, load libraries, or run the checks of a type or partition that is
# given by name or OID. A query cannot call functions that take an internal value or return a trigger or handler.
_REFUSED_BUILT_IN = f"""
    SELECT p.oid::int8, proname FROM pg_proc p JOIN pg_type t ON t.oid = prorettype
    WHERE p.oid < {_FIRST_USER_OID}
    AND typname !~ '(trigger|handler)$' AND 'internal'::regtype <> ALL (proargtypes)
    AND (provolatile = 'v' AND proname <> ALL ('{{{_HARMLESS_VOLATILE}}}')
        OR proname ~ '_to_xml|^fmgr_|^pg_input_|^txid_current$|^pg_current_xact_id$|^satisfies_hash_partition$'
        OR proargtypes[0] = 'cstring'::regtype AND proargtypes[1] = 'oid'::regtype)
"""
# The argument is the OIDs of all objects in a tree. The result is the names of functions that are not known to be
# harmless, and the trees of virtual columns, which only the planner adds. It includes functions that the server calls
# without a trace in the tree: handlers of foreign tables, casts to JSON (which to_json and similar functions use) and
# support functions of operator classes. The last two count unless they are in C, which only a superuser can add.
_PREPARE_CALLS = f"""
    PREPARE calls (oid[]) AS
    WITH RECURSIVE part (oid) AS (
        SELECT unnest($1)
        UNION SELECT next.oid FROM part CROSS JOIN LATERAL (
            SELECT inhrelid FROM pg_inherits WHERE inhparent = part.oid
            UNION ALL SELECT unnest(ARRAY[typelem, typbasetype]) FROM pg_type WHERE pg_type.oid = part.oid
            UNION ALL SELECT rngsubtype FROM pg_range WHERE part.oid IN (rngtypid, rngmultitypid)
            UNION ALL SELECT atttypid FROM pg_type JOIN pg_attribute ON attrelid = typrelid AND attnum > 0
                WHERE pg_type.oid = part.oid AND typrelid <> 0
        ) AS next (oid) WHERE next.oid >= {_FIRST_USER_OID}
    ),
    called (oid, implied) AS (
        SELECT next.* FROM part CROSS JOIN LATERAL (
            SELECT part.oid, false
            UNION ALL SELECT oprcode, false FROM pg_operator WHERE pg_operator.oid = part.oid
            UNION ALL SELECT fdwhandler, false FROM pg_foreign_table JOIN pg_foreign_server s ON s.oid = ftserver
                JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw WHERE ftrelid = part.oid
            UNION ALL SELECT castfunc, true FROM pg_cast WHERE castsource = part.oid
                AND casttarget IN ('json'::regtype, 'jsonb'::regtype)
            UNION ALL SELECT amproc, true FROM pg_opclass JOIN pg_amproc ON amprocfamily = opcfamily
                WHERE opcintype = part.oid
        ) AS next
    )
    SELECT n.nspname || '.' || p.proname, NULL::text FROM called JOIN pg_proc p USING (oid)
        JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
        WHERE p.oid >= {_FIRST_USER_OID}
        AND NOT (implied AND lanname IN ('c', 'internal'))
        AND NOT (lanname = 'internal' AND prosrc ~ '^(multi)?range_constructor[0-3]$')
        AND NOT ((lanname = 'c' OR proname = 'earth')
            AND (provolatile <> 'v' OR proname = ANY ('{{{_HARMLESS_VOLATILE}}}')) AND EXISTS (
            SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = refobjid
            WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'
            AND refclassid = 'pg_extension'::regclass AND extname = ANY ('{{{_HARMLESS_EXTENSIONS}}}')))
    UNION ALL SELECT NULL, adbin::text FROM part JOIN pg_attrdef ON adrelid = part.oid
        JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum AND attgenerated = 'v'
"""
# To parse a literal of an array, row or range, as in '{1}'::my_domain[], the server runs the checks of domains and the
# comparisons of ranges while it prepares the query. So they are inspected before anything is prepared. The result is
# the trees of all checks, and the OIDs of comparison functions in the form of a tree.
_LITERAL_CALLS = """
    SELECT conbin::text FROM pg_constraint WHERE contypid <> 0
    UNION ALL SELECT ':funcid ' || p.oid FROM pg_range JOIN pg_opclass o ON o.oid = rngsubopc
        JOIN pg_amproc ON amprocfamily = opcfamily JOIN pg_proc p ON p.oid = amproc
        JOIN pg_language l ON l.oid = prolang WHERE lanname NOT IN ('c', 'internal')
"""
_NUMBERS = re.compile(r":(\w+)\s+(?:\(o([\d\s]+)\)|(\d+))")
# Fields of a tree whose numbers are not OIDs. The numbers of all other fields are treated as OIDs.
_OTHER_FIELDS = re.compile(r"typmod$|location$|len$|^(var|res)no|attno|frameOptions|checkAsUser|requiredPerms")
_SELECT = "({QUERY :commandType 1 "
_CHANGES = re.compile(r":hasModifyingCTE\s+true")
_MOST_CHARACTERS = 100_000  # a tree is a hundred times as long as its query, and the server may log it
_PROBE_MILLISECONDS = 5000
_MESSAGE = "rewritten parse tree:"
_BEGIN = (
    b"BEGIN READ ONLY; SELECT pg_catalog.pg_current_snapshot(), "
    b"pg_catalog.set_config('statement_timeout', '%d', true), "
    b"pg_catalog.set_config('debug_print_rewritten', 'on', true)"
)
_SHOW = b"SET LOCAL debug_print_rewritten TO on"
_HIDE = b"SET LOCAL debug_print_rewritten TO off"
# Other schemas on the search path could replace the operators in these questions.
_ASK = "SET LOCAL search_path TO pg_catalog; {}; SET LOCAL search_path TO DEFAULT"


class CallCheck:
    """A check of the functions that queries of one connection call.

    Args:
        connection: in autocommit mode, outside of a transaction, with only pg_catalog on the search path.
        allowed: more functions to allow, as ``schema.name``. ``*`` and ``?`` are wildcards.

    Raises:
        psycopg.Error: the server lacks a catalog, as versions before PostgreSQL 14 do.
        JudgingError: the server sends no trees. Some servers only support PostgreSQL's protocol.
    """

    def __init__(self, connection: psycopg.Connection[TupleRow], allowed: Sequence[str]) -> None:
        self._connection = connection
        self._allowed = allowed
        self._trees: list[str] = []
        # OIDs that call no unknown function. They are valid until a transaction changes something on the server.
        self._harmless = set[int]()
        self._snapshot: bytes | None = None
        self._refused_literals: Answer | None = None
        connection.execute("SET client_min_messages TO log; SET debug_pretty_print TO off")
        connection.execute("SET plan_cache_mode TO force_generic_plan")
        self._refused: Mapping[int, str] = dict(connection.execute(_REFUSED_BUILT_IN))
        connection.execute(_PREPARE_CALLS)
        connection.add_notice_handler(self._keep_tree)
        self.refuse("SELECT 1", _PROBE_MILLISECONDS)
        if not (self._trees or self._refused_literals):
            raise JudgingError(
                "this server does not show which functions a query calls (debug_print_rewritten), so it cannot run "
                "generated SQL safely. Judge on a PostgreSQL server."
            )
        connection.execute("ROLLBACK")

    def refuse(self, query: str, milliseconds: int) -> Answer | None:
        """Start a READ ONLY transaction, prepare a query in it and return why it may not run (None if it may).

        Args:
            query: any SQL text.
            milliseconds: time limit of each statement in the transaction.

        Raises:
            psycopg.Error: the query cannot be prepared.
            ValueError: its text cannot be sent.
        """
        if len(query) > _MOST_CHARACTERS:
            return "failure", "other", f"a query of more than {_MOST_CHARACTERS:,} characters"
        if "\0" in query:  # libpq would send only the text before it
            raise ValueError("the query has a NUL character")
        pgconn = self._connection.pgconn
        snapshot = succeeded(pgconn.exec_(_BEGIN % milliseconds)).get_value(0, 0)
        if snapshot != self._snapshot:
            self._snapshot, self._harmless = None, set()  # reset now, in case the next lines fail
            succeeded(pgconn.exec_(_HIDE))
            self._refused_literals = self._refuse_calls([tree for (tree,) in self._ask(_LITERAL_CALLS)])
            succeeded(pgconn.exec_(_SHOW))
            self._snapshot = snapshot
        if self._refused_literals:
            return self._refused_literals
        self._trees.clear()
        text = query.encode()
        prepared, *hidden = in_one_trip(
            pgconn, lambda: pgconn.send_prepare(b"", text), lambda: pgconn.send_query_params(_HIDE, None)
        )
        if b"multiple commands" in (prepared.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""):
            return "failure", "forbidden", "more than one statement"
        for result in (prepared, *hidden):
            succeeded(result)
        trees = self._trees[:-1]  # the last one is that of _HIDE
        if not trees:
            return "failure", "syntax", "the query contains no statement"
        if any(not tree.startswith(_SELECT) or _CHANGES.search(tree) for tree in trees):
            return forbidden("a statement that does more than read")
        return self._refuse_calls(trees)

    def _refuse_calls(self, trees: Sequence[str]) -> Answer | None:
        seen = set[int]()
        while trees:
            found = {number for tree in trees for number in _oids(tree)} - seen
            seen |= found
            if refused := self._refused.keys() & found:
                return forbidden(f"function {self._refused[min(refused)]}")
            asked = {oid for oid in found if oid >= _FIRST_USER_OID} - self._harmless
            oids = ",".join(map(str, asked))
            rows = self._ask(f"EXECUTE calls('{{{oids}}}')") if asked else []
            if unknown := sorted({name for name, _ in rows if name and not self._allows(name)}):
                return unknown_functions(unknown)
            trees = [tree for _, tree in rows if tree]
        self._harmless |= seen
        return None

    def _ask(self, question: str) -> list[TupleRow]:
        cursor = self._connection.execute(_ASK.format(question).encode())
        cursor.nextset()
        return cursor.fetchall()

    def _allows(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)

    def _keep_tree(self, message: errors.Diagnostic) -> None:
        if message.message_primary == _MESSAGE:
            self._trees.append(message.message_detail or "")


def in_one_trip(pgconn: PGconn, *sends: Callable[[], None]) -> list[PGresult]:
    """Send statements together and return their results. Statements after a failed one are not run.

    Raises:
        psycopg.OperationalError: the connection broke before any result.
    """
    pgconn.enter_pipeline_mode()
    for send in sends:
        send()
    pgconn.pipeline_sync()
    results: list[PGresult] = []
    while pgconn.status == pq.ConnStatus.OK:
        result = pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC:
            pgconn.exit_pipeline_mode()
            break
        if result is not None:
            results.append(result)
    if not results:
        raise psycopg.OperationalError("the connection is lost")
    return results


def succeeded(result: PGresult) -> PGresult:
    """Return the result of a statement if it succeeded.

    Raises:
        psycopg.Error: the statement failed.
    """
    if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise errors.error_from_result(result)
    return result


def _oids(tree: str) -> set[int]:
    numbers = set[int]()
    for field, many, one in _NUMBERS.findall(tree):
        if not _OTHER_FIELDS.search(field):
            numbers.update(map(int, many.split() if many else (one,)))
    return numbers
