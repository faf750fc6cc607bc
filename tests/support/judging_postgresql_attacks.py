"""A database full of traps, the queries that try to spring one, and honest queries."""

# A session's advisory lock outlives a rollback: it shows that trap() ran, also in a READ ONLY transaction.
SETUP = """
CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(8, 2), made date, lower text, more jsonb, tags text[]);
INSERT INTO item SELECT i, 'item ' || i, i % 7 + 0.5, DATE '2024-01-01' + i, 'low', '{{"a": 1}}', ARRAY['x', 'y']
    FROM generate_series(1, 40) i;
CREATE SEQUENCE counter;
CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM pg_advisory_lock(7);
    RETURN 1;
END $$;
CREATE FUNCTION trap(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT trap() + $1';
CREATE FUNCTION trap_if(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT trap() = $1';
CREATE FUNCTION trap_all(VARIADIC int[]) RETURNS int LANGUAGE sql STABLE AS 'SELECT trap()';
CREATE FUNCTION trap_row(item) RETURNS int LANGUAGE sql STABLE AS 'SELECT trap()';
CREATE FUNCTION traps() RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT trap()';
CREATE FUNCTION "my-fn"() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT trap()';
CREATE FUNCTION "2x"() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT trap()';
CREATE FUNCTION "Ünï cödé"() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT trap()';
CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT trap()::text';
CREATE FUNCTION later(a int DEFAULT trap()) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION reads(text) RETURNS text LANGUAGE internal STABLE AS 'pg_read_file_all';
CREATE PROCEDURE change() LANGUAGE sql AS 'DELETE FROM item';
CREATE FUNCTION trap_eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT trap() = $1';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = trap_eq);
CREATE OPERATOR !! (RIGHTARG = int, FUNCTION = trap);
CREATE FUNCTION trap_oid(oid, oid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT trap() = 0';
CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap_oid);
CREATE TYPE pair AS (a int);
CREATE FUNCTION trap_pair(int) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW(trap())::pair';
CREATE CAST (int AS pair) WITH FUNCTION trap_pair(int) AS IMPLICIT;
CREATE FUNCTION wants_pair(pair) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION trap_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT to_json(trap())';
CREATE CAST (mood AS json) WITH FUNCTION trap_json(mood);
CREATE TYPE tone AS ENUM ('low', 'high');
CREATE TABLE moody (id int, mood mood);
INSERT INTO moody VALUES (1, 'good');
CREATE TYPE key AS (k int);
CREATE FUNCTION key_less(key, key) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT trap() = 1';
CREATE FUNCTION key_cmp(key, key) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT trap()';
CREATE OPERATOR <<< (LEFTARG = key, RIGHTARG = key, FUNCTION = key_less);
CREATE OPERATOR CLASS key_ops DEFAULT FOR TYPE key USING btree AS
    OPERATOR 1 <<<, OPERATOR 3 =(record, record), FUNCTION 1 key_cmp(key, key);
CREATE AGGREGATE trap_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', FINALFUNC = trap);
CREATE AGGREGATE trap_at(float8 ORDER BY int) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE VIEW trapped AS SELECT id, trap() AS t FROM item;
CREATE VIEW innocent AS SELECT id FROM trapped WHERE t = 1;
CREATE VIEW files AS SELECT pg_read_file('PG_VERSION') AS content;
CREATE TABLE guarded (id int);
INSERT INTO guarded VALUES (1);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (trap_if(id));
CREATE EXTENSION dblink; CREATE EXTENSION tablefunc; CREATE EXTENSION xml2; CREATE EXTENSION file_fdw;
CREATE EXTENSION isn; CREATE EXTENSION lo; CREATE EXTENSION adminpack;
CREATE SERVER disk FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE program (id int) SERVER disk OPTIONS (program 'touch {folder}/program; echo 1');
CREATE TABLE parent (id int) PARTITION BY LIST (id);
CREATE FOREIGN TABLE child PARTITION OF parent FOR VALUES IN (1) SERVER disk OPTIONS (program 'touch {folder}/child');
CREATE DOMAIN grown AS int CHECK (VALUE > 0);
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
"""
CHECKS = """
CREATE DOMAIN checked AS int CHECK (trap_if(VALUE));
CREATE TYPE holder AS (a text, c checked);
CREATE TYPE deep AS (h holder[]);
"""
EXTENSIONS = [
    "pg_trgm",
    "fuzzystrmatch",
    "unaccent",
    "citext",
    "hstore",
    "uuid-ossp",
    "intarray",
    "ltree",
    "cube",
    "earthdistance",
    "pgcrypto",
]
ROLES = """
CREATE ROLE reader LOGIN PASSWORD 'x' IN ROLE pg_read_all_data;
ALTER ROLE reader SET search_path = public, pg_catalog;
CREATE ROLE filer LOGIN PASSWORD 'x' IN ROLE pg_read_all_data, pg_read_server_files;
CREATE ROLE executer LOGIN PASSWORD 'x' IN ROLE pg_execute_server_program;
CREATE ROLE writers IN ROLE pg_write_server_files;
CREATE ROLE indirect LOGIN NOINHERIT PASSWORD 'x' IN ROLE writers;
CREATE ROLE signaler LOGIN PASSWORD 'x' IN ROLE pg_signal_backend;
CREATE ROLE creator LOGIN PASSWORD 'x' CREATEROLE;
CREATE ROLE copier LOGIN PASSWORD 'x' REPLICATION;
CREATE ROLE hidden LOGIN PASSWORD 'x' SUPERUSER;
ALTER ROLE hidden SET role = reader;
"""

UNKNOWN = [
    "SELECT trap()",
    "SELECT public.trap()",
    "SELECT TRAP /* ( */ -- )\n ()",
    'SELECT "trap"()',
    'SELECT U&"\\0074rap"()',
    "SELECT U&\"!0074rap\" UESCAPE '!' ()",
    'SELECT "my-fn"()',
    'SELECT "2x"()',
    'SELECT "Ünï cödé"()',
    "SELECT $q$; -- $q$, trap()",
    "SELECT E'\\'', trap()",
    "/* /* nested */ */ SELECT trap()",
    "SELECT trap(1)",
    "SELECT trap_all(VARIADIC ARRAY[1, 2])",
    "SELECT item.trap_row FROM item",
    "SELECT (item).trap_row FROM item",
    "SELECT later()",
    "SELECT later(a => 1)",
    "SELECT reads('PG_VERSION')",
    "SELECT lower('A'::varchar)",
    "SELECT * FROM traps()",
    "SELECT * FROM ROWS FROM (traps(), generate_series(1, 2)) AS r",
    "SELECT * FROM item, LATERAL traps()",
    "SELECT 1 LIMIT trap()",
    "SELECT 1 OFFSET trap()",
    "SELECT id FROM item WHERE false AND trap() = 1",
    "SELECT CASE WHEN false THEN trap() END",
    "SELECT id FROM item GROUP BY id HAVING trap() = 1",
    "SELECT id FROM item GROUP BY ROLLUP (id, trap(id))",
    "SELECT id FROM item ORDER BY trap(id)",
    "SELECT DISTINCT ON (trap(id)) id FROM item",
    "SELECT sum(id) FILTER (WHERE trap() = 1) FROM item",
    "SELECT rank() OVER (PARTITION BY trap(id)) FROM item",
    "SELECT sum(id) OVER (ROWS trap() PRECEDING) FROM item",
    "SELECT * FROM item TABLESAMPLE bernoulli (trap())",
    "SELECT 1 FROM item a JOIN item b ON trap() = 1",
    "SELECT (ARRAY[1, 2])[trap()]",
    "SELECT GREATEST(1, trap()), COALESCE(NULL, trap())",
    "SELECT 1 WHERE EXISTS (SELECT trap())",
    "WITH unused AS (SELECT trap()) SELECT 1",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT trap() FROM r) SELECT * FROM r",
    "VALUES (1), (trap())",
    "SELECT 1 UNION ALL SELECT trap()",
    "SELECT xmlelement(name a, trap())",
    "SELECT trap_sum(id) FROM item",
    "SELECT trap_sum(id) OVER () FROM item",
    "SELECT trap_at(0.5) WITHIN GROUP (ORDER BY id) FROM item",
    "SELECT 1 === 1",
    "SELECT 1 OPERATOR(public.===) 1",
    "SELECT !! 1",
    "SELECT 1 === ANY (ARRAY[1, 2])",
    "SELECT 1 === ALL (SELECT id FROM item)",
    "SELECT wants_pair(1)",
    "SELECT 1::pair",
    "SELECT CAST(id AS pair) FROM item",
    "SELECT ARRAY[1, 2]::pair[]",
    "SELECT to_json('good'::mood)",
    "SELECT json_agg(mood) FROM moody",
    "SELECT jsonb_build_object('a', mood) FROM moody",
    "SELECT row_to_json(moody) FROM moody",
    "SELECT row_to_json(q) FROM (SELECT mood FROM moody) q",
    "SELECT to_jsonb(array_agg(mood)) FROM moody",
    "SELECT ARRAY[ROW(1)::key] = ARRAY[ROW(1)::key]",
    "SELECT ROW(1)::key <<< ROW(2)::key",
    "SELECT k FROM (VALUES (ROW(1)::key), (ROW(2)::key)) v(k) ORDER BY k",
    "SELECT * FROM trapped",
    "TABLE trapped",
    "SELECT id FROM innocent",
    "SELECT (SELECT count(*) FROM innocent)",
    "SELECT * FROM program",
    "SELECT * FROM parent",
    "SELECT * FROM parent WHERE id = 1",
    "SELECT * FROM crosstab('select 1, 2, pg_re' || 'ad_file(''PG_VERSION'')') AS t(a int, b text)",
    "SELECT * FROM crosstab2('select ''a'', ''b'', trap()::text')",
    "SELECT * FROM connectby('trapped', 'id', 't', '1', 0) AS t(a text, b text, c int)",
    "SELECT * FROM xpath_table('id', 'name', 'trapped', '/a', 'true') AS t(a int, b text)",
    "SELECT * FROM dblink('dbname=shop', 'SELECT trap()') AS t(a int)",
    "SELECT dblink_connect('dbname=shop')",
    "SELECT dblink_exec('dbname=shop', 'DELETE FROM item')",
    "SELECT isn_weak(true)",
    "SELECT lo_oid(1::oid::lo)",
    "SELECT pg_file_write('{folder}/written', 'x', false)",
    "SELECT pg_logdir_ls()",
    "SELECT xslt_process('<a/>', '<b/>')",
    "SELECT set_limit(0.9)",
    "SELECT earth_distance(ll_to_earth(1, 2), ll_to_earth(3, 4))",
]
# The server reads some of these literals, and so runs the check, while it prepares the query.
LITERALS = [
    "SELECT 5::checked",
    "SELECT '{5}'::checked[]",
    "SELECT '(a,5)'::holder",
    "SELECT '{\"(a,5)\"}'::holder[]",
    "SELECT ROW('a', 5)::holder",
    "SELECT NULL::deep",
    "SELECT json_populate_record(NULL::holder, '{\"c\": 5}')",
    "SELECT * FROM json_to_record('{\"c\": 5}') AS x(c checked)",
    "SELECT * FROM XMLTABLE('/a' PASSING '<a>5</a>' COLUMNS c checked PATH '.')",
    "SELECT 1 WHERE NULL::holder = '(a,5)'",
    "SELECT domain_in('5', 'checked'::regtype, -1) IS NULL",
    "SELECT 1",
]
FORBIDDEN = [
    "SELECT set_config('work_mem', '1GB', false)",
    "SELECT nextval('counter')",
    "SELECT setval('counter', 9), currval('counter')",
    "SELECT lastval()",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT ('PG_VERSION'::text).pg_read_file",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT * FROM files",
    "SELECT * FROM pg_ls_dir('.')",
    "SELECT * FROM pg_ls_logdir()",
    "SELECT pg_stat_file('PG_VERSION')",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_export(1, '{folder}/lo')",
    "SELECT pg_sleep(1)",
    "SELECT pg_sleep_for('1 s')",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_xact_lock(7)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT pg_create_physical_replication_slot('s', true)",
    "SELECT pg_replication_origin_create('x')",
    "SELECT pg_export_snapshot()",
    "SELECT pg_stat_reset()",
    "SELECT pg_import_system_collations('public')",
    "SELECT pg_log_backend_memory_contexts(pg_backend_pid())",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SELECT query_to_xml('SELECT trap()', true, true, '')",
    "SELECT query_to_xml('SELECT tr' || 'ap()', true, true, '')",
    "SELECT table_to_xml('trapped', true, true, '')",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT cursor_to_xml('answer', 1, true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(trap()::text)')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, trap()::text::tsquery')",
    "SELECT domain_in('5', 'grown'::regtype, -1) IS NULL",
    "SELECT record_in('(5)', 'pair'::regtype, -1) IS NULL",
    "SELECT satisfies_hash_partition('parent'::regclass, 1, 0, 1)",
    "COPY (SELECT 1) TO PROGRAM 'touch {folder}/copied'",
    "COPY (SELECT trap()) TO '{folder}/copied'",
    "DO $$ BEGIN PERFORM trap(); END $$",
    "CALL change()",
    "SET ROLE judge",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION judge",
    "SET search_path = public",
    "SHOW data_directory",
    "SELECT 1; SELECT trap()",
    "SELECT 1; COMMIT; SELECT trap()",
    "BEGIN",
    "COMMIT AND CHAIN",
    "SAVEPOINT a",
    "PREPARE p AS SELECT trap()",
    "EXECUTE calls('{1}')",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DECLARE c CURSOR FOR SELECT trap()",
    "FETCH 1 FROM answer",
    "LISTEN a",
    "NOTIFY a",
    "CHECKPOINT",
    "EXPLAIN SELECT trap()",
    "EXPLAIN ANALYZE SELECT trap()",
    "CREATE TEMP VIEW v AS SELECT trap()",
    "CREATE TABLE t AS SELECT trap()",
    "CREATE MATERIALIZED VIEW m AS SELECT trap()",
    "SELECT id INTO copied FROM item",
    "WITH gone AS (DELETE FROM item RETURNING id) SELECT * FROM gone",
    "SELECT * FROM (SELECT id FROM item) q FOR UPDATE",
    "SELECT * FROM item FOR SHARE",
    "SELECT * FROM item FOR KEY SHARE SKIP LOCKED",
    "MERGE INTO item USING moody ON true WHEN MATCHED THEN DELETE",
    "REFRESH MATERIALIZED VIEW m",
    "IMPORT FOREIGN SCHEMA x FROM SERVER disk INTO public",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "LOAD 'dblink'",
]
READS = [
    "SELECT count(*), sum(price), avg(price), min(made), max(name), stddev(price), corr(price, id) FROM item",
    "SELECT price, count(*) FILTER (WHERE id > 3), string_agg(name, ',' ORDER BY id) FROM item GROUP BY price",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price), mode() WITHIN GROUP (ORDER BY made) FROM item",
    "SELECT rank() OVER w, lag(price) OVER w, sum(id) OVER (w ROWS 2 PRECEDING) FROM item WINDOW w AS (ORDER BY made)",
    "SELECT sum(id) OVER (ORDER BY made RANGE BETWEEN '2 days' PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM item",
    "SELECT more ->> 'a', more @> '{\"a\": 1}', jsonb_path_query(more, '$.a'), jsonb_object_keys(more) FROM item",
    "SELECT json_agg(item), to_jsonb(array_agg(id)), row_to_json(ROW(1, 2)) FROM item",
    "SELECT * FROM json_to_recordset('[{\"a\": 1}]') AS x(a int)",
    "SELECT * FROM jsonb_array_elements('[1, 2]'), jsonb_each_text('{\"a\": 1}')",
    "SELECT unnest(tags), tags || 'z'::text, 'x' = ANY (tags), array_position(tags, 'y') FROM item",
    "SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY AS u(a, b, n)",
    "SELECT date_trunc('month', made), extract(year FROM made), to_char(made, 'YYYY-MM'), age(made) FROM item",
    "SELECT made - interval '1 month', now(), current_date, make_date(2024, 1, 2), date_part('dow', made) FROM item",
    "SELECT '2024-01-01'::timestamptz AT TIME ZONE 'Europe/Paris', (made, made + 3) OVERLAPS (made, made) FROM item",
    "SELECT initcap(name), substring(name FROM 2 FOR 3), position('m' IN name), trim(both 'i' FROM name) FROM item",
    "SELECT split_part(name, ' ', 1), lpad(name, 9), concat_ws('-', name, id), format('%s', name) FROM item",
    "SELECT regexp_replace(name, '\\d', 'x'), name ~ '^i', name SIMILAR TO 'i%', name ILIKE 'I%', md5(name) FROM item",
    "SELECT regexp_matches('a1b2', '[0-9]', 'g'), string_to_array('a,b', ','), regexp_split_to_table('a b', ' ')",
    "SELECT g, g::date FROM generate_series(DATE '2024-01-01', '2024-01-03', '1 day') g",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
    "SELECT i.id, l.id FROM item i CROSS JOIN LATERAL (SELECT id FROM item j WHERE j.id < i.id LIMIT 1) l",
    "SELECT price, made, count(*) FROM item GROUP BY GROUPING SETS ((price), (made), ()) ORDER BY 1, 2",
    "SELECT round(price, 1), ceil(price), mod(id, 3), greatest(id, 3), width_bucket(price, 0, 9, 3) FROM item",
    "SELECT random() < 2, coalesce(NULL, 1), nullif(id, 1), CASE WHEN id > 1 THEN 'a' END, sqrt(price) FROM item",
    "SELECT id FROM item EXCEPT SELECT id FROM item WHERE id < 3 INTERSECT SELECT id FROM item",
    "SELECT * FROM item TABLESAMPLE bernoulli (50) REPEATABLE (1)",
    "SELECT to_tsvector('english', name) @@ plainto_tsquery('item'), ts_rank(to_tsvector(name), 'item') FROM item",
    "SELECT int4range(1, 5) && int4range(3, 9), '10.0.0.1'::inet << '10.0.0.0/8', gen_random_uuid() IS NOT NULL",
    "SELECT xmlelement(name a, xmlagg(xmlelement(name b, id))), xpath('/a', '<a/>') FROM item",
    "SELECT (ROW(1, 2)), ROW(1, 2) < ROW(1, 3), (id, name) IN (SELECT id, name FROM item) FROM item",
    "SELECT tone, tone > 'low' FROM (VALUES ('high'::tone)) v (tone)",
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'r'",
    "SELECT current_setting('work_mem'), version()",
    "SELECT similarity(name, 'itme'), name % 'item', levenshtein(name, 'x'), soundex(name), unaccent(name) FROM item",
    "SELECT 'A'::citext = 'a', 'a=>1'::hstore -> 'a', 'a.b'::ltree @> 'a.b.c', cube(1, 2), ARRAY[1] && ARRAY[2]",
    "SELECT digest('a', 'sha256'), uuid_generate_v4() IS NOT NULL, uniq(ARRAY[1, 1]), to_json('a=>1'::hstore)",
    "SELECT 1 -- trap()",
    "SELECT 'trap()' AS trap, $$pg_sleep(9)$$ AS pg_sleep",
    'SELECT id AS trap, name AS "my-fn", lower FROM item AS pg_read_file ORDER BY trap, pg_read_file.id',
    "WITH nextval AS (SELECT 1 AS setval) SELECT setval FROM nextval",
]
