//! Statement, its `db.query.text`, its `db.query.summary`.

use agent_core::sql::{Dialect, analyze, sanitize, summary};

const G: Dialect = Dialect::Generic;
const P: Dialect = Dialect::PostgreSql;
const M: Dialect = Dialect::MySql;
const S: Dialect = Dialect::Sqlite;
const B: Dialect = Dialect::GoogleSql;
const ALL: &[Dialect] = &[G, P, M, S];
/// The text stays as it is.
const SAME: &str = "\0same";

type Case = (&'static [Dialect], &'static str, &'static str, &'static str);

/// The examples of the semantic conventions.
const CONVENTION: &[Case] = &[
    (ALL, "SELECT *\nFROM   wuser_table\nWHERE  username = ?", SAME, "SELECT wuser_table"),
    (
        ALL,
        "INSERT INTO shipping_details\n (order_id,\n address)\nSELECT order_id,\n address\nFROM orders\nWHERE order_id = ?",
        SAME,
        "INSERT shipping_details SELECT orders",
    ),
    (
        ALL,
        "SELECT *\nFROM songs,\n artists\nWHERE songs.artist_id == artists.id",
        SAME,
        "SELECT songs artists",
    ),
    (
        ALL,
        "SELECT order_date\nFROM (SELECT *\n FROM orders o\n JOIN customers c\n ON o.customer_id = c.customer_id)",
        SAME,
        "SELECT SELECT orders customers",
    ),
    (
        &[S],
        "SELECT *\nFROM \"song list\",\n 'artists'",
        "SELECT *\nFROM \"song list\",\n ?",
        "SELECT \"song list\" 'artists'",
    ),
    // Elsewhere a text is no table.
    (
        &[G, P],
        "SELECT *\nFROM \"song list\",\n 'artists'",
        "SELECT *\nFROM \"song list\",\n ?",
        "SELECT \"song list\"",
    ),
    (&[M, B], "SELECT * FROM \"song list\", 'artists'", "SELECT * FROM ?, ?", "SELECT"),
    (ALL, "{call some_stored_procedure}", SAME, "call some_stored_procedure"),
    (ALL, "EXECUTE some_stored_procedure", SAME, "EXECUTE some_stored_procedure"),
    (ALL, "SELECT * FROM t WHERE a IN (1, 2, 3, 4)", "SELECT * FROM t WHERE a IN (?)", "SELECT t"),
];

const NUMBERS: &[Case] = &[
    (ALL, "SELECT 1", "SELECT ?", "SELECT"),
    (ALL, "select 1.5, .5, 5., 1e10, 1.5E-3, 2e+9", "select ?, ?, ?, ?, ?, ?", "select"),
    (ALL, "SELECT 0xFF, 0Xdead, 0b101, 0o17, 1_000_000", "SELECT ?, ?, ?, ?, ?", "SELECT"),
    (ALL, "SELECT -1, +2, -.5, a-1, a - 1, (b)-2", "SELECT ?, ?, ?, a-?, a - ?, (b)-?", "SELECT"),
    (ALL, "SELECT a FROM t WHERE b >= -12 AND c<-3", "SELECT a FROM t WHERE b >= ? AND c<?", "SELECT t"),
    (ALL, "SELECT x FROM t LIMIT 10 OFFSET 20", "SELECT x FROM t LIMIT ? OFFSET ?", "SELECT t"),
    (
        ALL,
        "SELECT col1, r2d2 FROM t_2024 WHERE n1=7",
        "SELECT col1, r2d2 FROM t_2024 WHERE n1=?",
        "SELECT t_2024",
    ),
    (ALL, "SELECT 555-12-3456", "SELECT ?-?-?", "SELECT"),
    (ALL, "SELECT 1/2*3", "SELECT ?/?*?", "SELECT"),
    (ALL, "SELECT a BETWEEN 1 AND -5", "SELECT a BETWEEN ? AND ?", "SELECT"),
    (&[P], "SELECT a[1:2], ARRAY[1,2], b[3]", "SELECT a[?:?], ARRAY[?,?], b[?]", "SELECT"),
    (ALL, "12345", "?", ""),
    (ALL, "SELECT * FROM tableओ7 WHERE f = 'ɣ'", "SELECT * FROM tableओ7 WHERE f = ?", "SELECT tableओ7"),
    (&[G], "SELECT price FROM p WHERE price > $12.50", "SELECT price FROM p WHERE price > ?", "SELECT p"),
    (&[M], "SELECT 5--1", "SELECT ?-?", "SELECT"),
];

const STRINGS: &[Case] = &[
    (ALL, "SELECT 'a', '', 'it''s', '\"'", "SELECT ?, ?, ?, ?", "SELECT"),
    (&[M], r"SELECT 'it\'s', 'end\\', 'x'", "SELECT ?, ?, ?", "SELECT"),
    (&[P, S], r"SELECT 'C:\', a FROM t WHERE b = 'x'", "SELECT ?, a FROM t WHERE b = ?", "SELECT t"),
    (&[P], r"SELECT E'it\'s', e'\\', 'a'", "SELECT ?, ?, ?", "SELECT"),
    (&[G], r"SELECT a FROM t WHERE b = 'C:\' AND c = 'x'", "SELECT a FROM t WHERE b = ?", "SELECT t"),
    (
        &[G],
        r"SELECT a FROM t WHERE b = 'C:\\' AND c = 'x'",
        "SELECT a FROM t WHERE b = ? AND c = ?",
        "SELECT t",
    ),
    (
        &[G, P, S],
        r"SELECT a FROM t WHERE b LIKE '10\%' ESCAPE '\' AND c = 2",
        "SELECT a FROM t WHERE b LIKE ? ESCAPE ? AND c = ?",
        "SELECT t",
    ),
    (ALL, "SELECT N'nchar', X'DEAD', b'0101', x'00'", "SELECT ?, ?, ?, ?", "SELECT"),
    (&[P], r"SELECT U&'d\0061t\+000061', U&'!' UESCAPE '!'", "SELECT ?, ? UESCAPE ?", "SELECT"),
    (&[P, G], "SELECT $$it's$$, $tag$ $$ ' $tag$", "SELECT ?, ?", "SELECT"),
    (&[P], "SELECT $a$nested $b$x$b$ y$a$ FROM t", "SELECT ? FROM t", "SELECT t"),
    (&[P, G], "SELECT $$never closed, 'x'", "SELECT ?", "SELECT"),
    (ALL, "SELECT 'never closed, 1", "SELECT ?", "SELECT"),
    (ALL, "SELECT a FROM t WHERE b = 'x' 'y'\n'z'", "SELECT a FROM t WHERE b = ? ?\n?", "SELECT t"),
    (&[M], "SELECT _utf8mb4'text', _binary X'00'", "SELECT _utf8mb4?, _binary ?", "SELECT"),
    (&[M], "SELECT \"double\", \"dou\"\"ble\", \"it's\" FROM t", "SELECT ?, ?, ? FROM t", "SELECT t"),
    (&[G], "SELECT q'[it's]', Q'{x}', nq'!a'b!', q'(y)'", "SELECT ?, ?, ?, ?", "SELECT"),
    (ALL, "SELECT DATE '2020-01-01', INTERVAL '1 day'", "SELECT DATE ?, INTERVAL ?", "SELECT"),
    (&[P], "SELECT '2020-01-01'::date, '{1,2}'::int[]", "SELECT ?::date, ?::int[]", "SELECT"),
    (ALL, "SELECT NULL, TRUE, false FROM t", SAME, "SELECT t"),
    (ALL, "SELECT 'a'FROM t", "SELECT ?FROM t", "SELECT t"),
    (ALL, "INSERT INTO t VALUES ('x',1),('y',2)", "INSERT INTO t VALUES (?,?),(?,?)", "INSERT t"),
];

const QUOTES: &[Case] = &[
    (&[P, G, S], "SELECT \"a b\", \"we\"\"ird\" FROM \"My Table\"", SAME, "SELECT \"My Table\""),
    (&[M, G, S], "SELECT `a` FROM `my ``table`", SAME, "SELECT `my ``table`"),
    (
        &[G, S],
        "SELECT [a b] FROM [dbo].[My Table] WHERE [x] = 1",
        "SELECT [a b] FROM [dbo].[My Table] WHERE [x] = ?",
        "SELECT [dbo].[My Table]",
    ),
    (&[G], "SELECT ['a', 'b'], [1, 2], x[3]", "SELECT [?, ?], [?, ?], x[?]", "SELECT"),
    (&[P, G], "SELECT * FROM \"s\".\"t\", s2.t2", SAME, "SELECT \"s\".\"t\" s2.t2"),
    (&[G], "SELECT * FROM db..t", SAME, "SELECT db..t"),
    (&[G], "SELECT * FROM srv.db.dbo.t", SAME, "SELECT srv.db.dbo.t"),
    (&[G], "SELECT * FROM orders@remote", SAME, "SELECT orders@remote"),
    (&[G], "SELECT * FROM #temp", SAME, "SELECT #temp"),
    (&[P], "SELECT U&\"d\\0061ta\" FROM t", SAME, "SELECT t"),
    (&[S], "SELECT * FROM t WHERE name = \"alice\"", "SELECT * FROM t WHERE name = ?", "SELECT t"),
    (
        &[S],
        "INSERT INTO t (\"a\", \"b\") VALUES (\"x\", \"y z\")",
        "INSERT INTO t (\"a\", \"b\") VALUES (?, ?)",
        "INSERT t",
    ),
    (
        &[S],
        "SELECT \"t\".\"a\" FROM \"t\" JOIN \"u\" ON \"t\".\"a\" = \"u\".\"b\"",
        SAME,
        "SELECT \"t\" \"u\"",
    ),
    (&[S], "SELECT json_extract(\"{'a': 1}\", a) FROM t", "SELECT json_extract(?, a) FROM t", "SELECT t"),
    (
        &[S],
        "SELECT a FROM t WHERE b LIKE \"%x%\" OR c IN (\"d\", \"e\")",
        "SELECT a FROM t WHERE b LIKE ? OR c IN (?)",
        "SELECT t",
    ),
    (&[P], "SELECT a FROM t WHERE \"a\" = \"b\"", SAME, "SELECT t"),
    (&[P, G, S], "SELECT \"never closed FROM t", "SELECT ?", "SELECT"),
    (&[M], "SELECT `never closed FROM t", "SELECT ?", "SELECT"),
    (
        &[M],
        "GRANT ALL ON d.* TO 'bob'@'10.0.0.1' IDENTIFIED BY 'pw'",
        "GRANT ALL ON d.* TO ?@? IDENTIFIED BY ?",
        "GRANT",
    ),
    (
        &[G],
        "ALTER USER bob IDENTIFIED BY Secret1 REPLACE Secret0",
        "ALTER USER bob IDENTIFIED BY ? REPLACE ?",
        "ALTER USER bob",
    ),
    (&[G], "CREATE USER bob IDENTIFIED BY \"Secret1\"", "CREATE USER bob IDENTIFIED BY ?", "CREATE USER bob"),
];

/// Texts in double quotes that SQLite takes for values.
const QUOTED_VALUES: &[Case] = &[
    (
        &[G, S],
        "SELECT a FROM t WHERE d BETWEEN ? AND \"2020-12-31\" AND e BETWEEN \"a\" AND \"b\" AND \"f\" = ?",
        "SELECT a FROM t WHERE d BETWEEN ? AND ? AND e BETWEEN ? AND ? AND \"f\" = ?",
        "SELECT t",
    ),
    (
        &[G, S],
        "SELECT a FROM t WHERE (name, pw) = (\"bob\", \"x\") AND a = (\"y\")",
        "SELECT a FROM t WHERE (name, pw) = (?, ?) AND a = (?)",
        "SELECT t",
    ),
    (
        &[S],
        "SELECT a FROM t WHERE (\"bob\", \"x\") = (name, pw)",
        "SELECT a FROM t WHERE (?, ?) = (name, pw)",
        "SELECT t",
    ),
    (
        &[G, S],
        "SELECT a FROM t WHERE pw = lower(trim(\"x\")) AND \"b\" = ?",
        "SELECT a FROM t WHERE pw = lower(trim(?)) AND \"b\" = ?",
        "SELECT t",
    ),
    (
        &[G, S],
        "SELECT a FROM t WHERE \"x\" = pw OR \"x\" /* c */ <> u.pw OR lower(\"x\") = pw OR \"x\" NOT LIKE \"pw\"",
        "SELECT a FROM t WHERE ? = pw OR ? /* c */ <> u.pw OR lower(?) = pw OR ? NOT LIKE ?",
        "SELECT t",
    ),
    (
        &[G, S],
        "SELECT a FROM t WHERE \"x\" IN (name, pw) AND CAST(\"x\" AS text) = pw AND \"x\" || salt = pw",
        "SELECT a FROM t WHERE ? IN (name, pw) AND CAST(? AS text) = pw AND ? || salt = pw",
        "SELECT t",
    ),
    (&[S], "SELECT replace(a, \"x\", \"y\") FROM t", "SELECT replace(a, ?, ?) FROM t", "SELECT t"),
    (
        &[G, S],
        "INSERT INTO t (\"a\") VALUES (CAST(? AS text), \"x\"), ((SELECT 1), \"y\"), (a AND b, \"z\")",
        "INSERT INTO t (\"a\") VALUES (CAST(? AS text), ?), ((SELECT ?), ?), (a AND b, ?)",
        "INSERT t SELECT",
    ),
    (&[G, S], "INSERT INTO t (a) SELECT \"x\"", "INSERT INTO t (a) SELECT ?", "INSERT t SELECT"),
    (
        &[G, S],
        "INSERT INTO t SELECT \"x\", lower(\"y\") WHERE NOT EXISTS (SELECT 1 FROM u)",
        "INSERT INTO t SELECT ?, lower(?) WHERE NOT EXISTS (SELECT ? FROM u)",
        "INSERT t SELECT SELECT u",
    ),
    (
        &[G, S],
        "UPDATE t SET \"a\" = coalesce(null, \"x\"), \"b\" = c WHERE \"d\" = ?",
        "UPDATE t SET \"a\" = coalesce(null, ?), \"b\" = c WHERE \"d\" = ?",
        "UPDATE t",
    ),
    (&[S], "PRAGMA key(\"x\")", "PRAGMA key(?)", "PRAGMA key"),
    (&[S], "PRAGMA rekey = x; PRAGMA key(x)", "PRAGMA rekey = ?; PRAGMA key(?)", "PRAGMA rekey; PRAGMA key"),
    (&[S], "PRAGMA main.journal_mode = wal", SAME, "PRAGMA main.journal_mode"),
    (&[S], "ATTACH DATABASE ? AS e KEY \"x\"", "ATTACH DATABASE ? AS e KEY ?", "ATTACH"),
    (&[S], "ATTACH DATABASE ? AS e KEY x", "ATTACH DATABASE ? AS e KEY ?", "ATTACH"),
    (&[M], "XA COMMIT 'a', 'b'", "XA COMMIT ?, ?", "XA"),
];

/// What Django and SQLAlchemy quote.
const QUOTED_NAMES: &[Case] = &[
    (
        &[G, P, S],
        "SELECT \"t\".\"a\", COUNT(\"t\".\"id\") AS \"n\" FROM \"t\" INNER JOIN \"u\" ON (\"t\".\"a\" = \"u\".\"b\") WHERE (\"t\".\"a\" = ? AND \"t\".\"b\" IN (?) AND NOT (lower(\"t\".\"a\") = ?)) GROUP BY \"t\".\"a\" HAVING COUNT(\"t\".\"id\") > ? ORDER BY \"t\".\"a\" ASC, \"n\" DESC",
        SAME,
        "SELECT \"t\" \"u\"",
    ),
    (
        &[G, P, S],
        "INSERT INTO \"t\" (\"a\", \"b\") VALUES (?, ?), (?, ?) ON CONFLICT (\"a\", \"b\") DO UPDATE SET \"a\" = EXCLUDED.\"a\", \"b\" = EXCLUDED.\"b\" RETURNING \"id\", \"b\"",
        SAME,
        "INSERT \"t\"",
    ),
    (&[G, P, S], "INSERT INTO t (\"group\", \"order\") VALUES (?, ?)", SAME, "INSERT t"),
    (
        &[G, P, S],
        "INSERT INTO \"new__t\" (\"a\", \"b\") SELECT \"a\", \"b\" FROM \"t\"",
        SAME,
        "INSERT \"new__t\" SELECT \"t\"",
    ),
    (
        &[G, P, S],
        "UPDATE \"t\" SET \"a\" = ?, \"b\" = (\"t\".\"b\" + ?), \"c\" = CASE WHEN (\"t\".\"a\" = ?) THEN \"t\".\"b\" ELSE NULL END WHERE \"t\".\"id\" IN (?)",
        SAME,
        "UPDATE \"t\"",
    ),
    (
        &[G, P, S],
        "SELECT \"a\", \"b\" FROM (SELECT \"t\".\"a\" AS \"a\", ? AS \"b\" FROM \"t\") \"s\" WHERE \"a\" > ? AND (\"b\" IS NULL OR \"b\" IN (SELECT \"x\" FROM \"u\")) ORDER BY \"a\", \"b\"",
        SAME,
        "SELECT SELECT \"t\" SELECT \"u\"",
    ),
    (
        &[G, P, S],
        "CREATE TABLE \"t\" (\"id\" integer NOT NULL PRIMARY KEY, \"p\" integer NULL REFERENCES \"u\" (\"id\"), \"n\" integer DEFAULT ? NOT NULL CONSTRAINT \"c\" CHECK (\"n\" >= ?), UNIQUE (\"id\", \"n\"), FOREIGN KEY (\"p\", \"n\") REFERENCES \"v\" (\"a\", \"b\"))",
        SAME,
        "CREATE TABLE \"t\"",
    ),
    (
        &[G, P, S],
        "CREATE UNIQUE INDEX \"i\" ON \"t\" (\"a\", \"b\") WHERE \"c\" IS NOT NULL",
        SAME,
        "CREATE INDEX \"i\"",
    ),
    (
        &[G, P, S],
        "WITH \"c\" (\"a\", \"b\") AS (SELECT \"a\", \"b\" FROM \"t\") SELECT ROW_NUMBER() OVER (PARTITION BY \"a\", \"b\"), max(\"a\") FROM \"c\"",
        SAME,
        "SELECT \"t\" SELECT",
    ),
];

/// Texts that one system reads otherwise than another.
const STEPS: &[Case] = &[
    (
        &[S],
        "SELECT [Sales (Bob's)], [a--b], [c\nd] FROM t WHERE a = 'x'",
        "SELECT [Sales (Bob's)], [a--b], [c\nd] FROM t WHERE a = ?",
        "SELECT t",
    ),
    (&[S], "SELECT 1e5[ , B'], 'x'", "SELECT ?[ , B'], ?", "SELECT"),
    (&[S], "SELECT [never closed, 'x'", "SELECT ?", "SELECT"),
    (&[G], "SELECT [Sales (Bob's)] FROM t WHERE a = 'x'", "SELECT ?", "SELECT"),
    (&[G], "SELECT a[Bob's] FROM t WHERE a = 'x'", "SELECT a?", "SELECT"),
    (&[G], "SELECT [a]]'b], 'x'", "SELECT ?", "SELECT"),
    (&[G], "SELECT [a--b], it's\n, 'x'", "SELECT ?", "SELECT"),
    (&[G], "SELECT [[1, 2], [3]], ['a', 'b'], 'x'", "SELECT [[?, ?], [?]], [?, ?], ?", "SELECT"),
    (&[M, S], "SELECT 1 -- don't\r it's\n, 'x'", "SELECT ? -- don't\r it's\n, ?", "SELECT"),
    (&[M], "SELECT 1 # don't\r it's\n, 'x'", "SELECT ? # don't\r it's\n, ?", "SELECT"),
    (&[P], "SELECT 1 -- don't\r, 'x'", "SELECT ? -- don't\r, ?", "SELECT"),
    (&[G, B], "SELECT 1 -- don't\r it's\n, 'x'", "SELECT ? ?", "SELECT"),
    (ALL, "SELECT a -- don't\r\nFROM t WHERE b = 'x'", "SELECT a -- don't\r\nFROM t WHERE b = ?", "SELECT t"),
    (&[G, P, B], "SELECT a -- b\rFROM t", SAME, "SELECT t"),
    (&[M, G], "SELECT /*!99999 it's */ 'x'", "SELECT ?", "SELECT"),
    (&[M, G], "SELECT /*!50001 a -- b */ c\n, 'x'", "SELECT ?", "SELECT"),
    (&[M, G], "SELECT /*M! it's */ 'x'", "SELECT ?", "SELECT"),
    (&[M], "SELECT /*! \"it's\", 1 */, 'x'", "SELECT /*! ?, ? */, ?", "SELECT"),
    (&[G], "SELECT /*! don't */ 'x'", "SELECT ?", "SELECT"),
    (
        &[M],
        "SELECT /*!1234 */, /*!80000 12 */, /*!800001 3 */",
        "SELECT /*!? */, /*!80000 ? */, /*!800001 ? */",
        "SELECT",
    ),
    (&[P, S, B], "SELECT /*!99999 it's */ 'x'", "SELECT /*!99999 it's */ ?", "SELECT"),
    (&[P], "SELECT E'a'\n'it\\'s x'", "SELECT ?\n?", "SELECT"),
    (
        &[P],
        "SELECT E'a' -- it's\n  'it\\'s x'\n'y\\'z', 'b\\', c",
        "SELECT ? -- it's\n  ?\n?, ?, c",
        "SELECT",
    ),
    (&[P], "SELECT 'a'\n'b\\', c", "SELECT ?\n?, c", "SELECT"),
    (
        &[B],
        "SELECT '''it's x''', \"\"\"a \"b\" c\"\"\", \"x\", 'it\\'s', r'a\\'b' FROM `t`",
        "SELECT ?, ?, ?, ?, r? FROM `t`",
        "SELECT `t`",
    ),
    (
        &[B],
        "SELECT a # it's\nFROM t WHERE b IN UNNEST(['x', \"y\"])",
        "SELECT a # it's\nFROM t WHERE b IN UNNEST([?, ?])",
        "SELECT t",
    ),
    (&[B], "SELECT '''never closed'', 1", "SELECT ?", "SELECT"),
    (&[G], "SELECT 1 // it's\n FROM t WHERE a = 'x'", "SELECT ? ?", "SELECT"),
    (&[G], "SELECT 5 // 2, 'x'\n, a // 3", "SELECT ? ?", "SELECT"),
    (&[G], "SELECT a // 3\n, 'x' FROM t", "SELECT a // ?\n, ? FROM t", "SELECT t"),
    (&[G], "SELECT £100, €-5.50, ¥.5, £x FROM t", "SELECT ?, ?, ?, £x FROM t", "SELECT t"),
];

/// Passwords and other values that stand without quotes, or in those of a name.
const BARE: &[Case] = &[
    (&[G], "CREATE USER bob PASSWORD \"x1\"", "CREATE USER bob PASSWORD ?", "CREATE USER bob"),
    (
        &[G],
        "CREATE USER bob PASSWORD x1 NO FORCE_FIRST_PASSWORD_CHANGE",
        "CREATE USER bob PASSWORD ? NO FORCE_FIRST_PASSWORD_CHANGE",
        "CREATE USER bob",
    ),
    (
        &[G],
        "ALTER USER bob PASSWORD \"x1\"; CONNECT bob PASSWORD x1",
        "ALTER USER bob PASSWORD ?; CONNECT bob PASSWORD ?",
        "ALTER USER bob",
    ),
    (
        &[G],
        "CREATE USER bob AS PERM=1000, PASSWORD=x1",
        "CREATE USER bob AS PERM=?, PASSWORD=?",
        "CREATE USER bob",
    ),
    (&[G], "MODIFY USER bob AS PASSWORD = (x1)", "MODIFY USER bob AS PASSWORD = (?)", ""),
    (
        &[G],
        "CREATE USER bob AS PASSWORD=x1, PERM=1e9",
        "CREATE USER bob AS PASSWORD=?, PERM=?",
        "CREATE USER bob",
    ),
    (&[G], "ALTER USER bob PASSWORD EXPIRE", SAME, "ALTER USER bob"),
    (&[G], "ALTER USER bob DISABLE PASSWORD LIFETIME", SAME, "ALTER USER bob"),
    (
        &[G],
        "GRANT CREATE SESSION TO a, b IDENTIFIED BY x, y",
        "GRANT CREATE SESSION TO a, b IDENTIFIED BY ?, ?",
        "GRANT",
    ),
    (
        &[G],
        "ADMINISTER KEY MANAGEMENT ALTER KEYSTORE PASSWORD IDENTIFIED BY x SET y WITH BACKUP",
        "ADMINISTER KEY MANAGEMENT ALTER KEYSTORE PASSWORD IDENTIFIED BY ? SET ? WITH BACKUP",
        "",
    ),
    (&[G, M], "ALTER USER bob IDENTIFIED BY password", "ALTER USER bob IDENTIFIED BY ?", "ALTER USER bob"),
    (
        &[G, M],
        "ALTER USER bob IDENTIFIED BY PASSWORD 'x'",
        "ALTER USER bob IDENTIFIED BY PASSWORD ?",
        "ALTER USER bob",
    ),
    (&[M], "ALTER USER bob IDENTIFIED BY RANDOM PASSWORD", SAME, "ALTER USER bob"),
    (
        &[G],
        "ALTER USER bob IDENTIFIED BY VALUES 'x'",
        "ALTER USER bob IDENTIFIED BY VALUES ?",
        "ALTER USER bob",
    ),
    (
        &[G],
        "ALTER USER bob IDENTIFIED BY \"x\" REPLACE y",
        "ALTER USER bob IDENTIFIED BY ? REPLACE ?",
        "ALTER USER bob",
    ),
    (ALL, "SELECT password FROM users WHERE password = ? AND users.password IS NULL", SAME, "SELECT users"),
    (
        ALL,
        "SELECT u.password AS p FROM users u WHERE u.password = p ORDER BY password DESC",
        SAME,
        "SELECT users",
    ),
    (ALL, "CREATE TABLE users (password varchar NOT NULL, key text)", SAME, "CREATE TABLE users"),
    (ALL, "UPDATE users SET password = lower(name)", SAME, "UPDATE users"),
    (&[G], "EXEC sp_addlogin bob, x", "EXEC sp_addlogin ?, ?", "EXEC sp_addlogin"),
    (
        &[G],
        "EXEC @rc = dbo.p @a = x, @b = @c OUTPUT, \"y\", [z], NULL",
        "EXEC @rc = dbo.p @a = ?, @b = @c OUTPUT, ?, ?, NULL",
        "EXEC dbo.p",
    ),
    (&[G], "EXEC [dbo].[p] x WITH RECOMPILE", "EXEC [dbo].[p] ? WITH RECOMPILE", "EXEC [dbo].[p]"),
    (&[G], "EXEC p\nSELECT a FROM t", SAME, "EXEC p"),
    (&[G], "EXEC p x EXEC q y, z", "EXEC p ? EXEC q ?, ?", "EXEC p"),
    (&[G], "SELECT exec, a FROM t WHERE exec = b AND c = d", SAME, "SELECT t"),
    (&[G], "GRANT EXECUTE ON p TO bob", SAME, "GRANT"),
    (&[G], "EXECUTE PROCEDURE p(a, b)", SAME, "EXECUTE p"),
];

/// Words that are keywords in one place and not in another.
const PLACES: &[Case] = &[
    (&[M], "SELECT STRAIGHT_JOIN 'x'", "SELECT STRAIGHT_JOIN ?", "SELECT"),
    (&[M], "SELECT STRAIGHT_JOIN a.x FROM a JOIN b STRAIGHT_JOIN c", SAME, "SELECT a b c"),
    (&[M], "UPDATE a STRAIGHT_JOIN b SET a.x = b.x", SAME, "UPDATE a b"),
    (
        &[M],
        "SELECT a FROM t USE INDEX FOR JOIN (i1), u IGNORE KEY FOR ORDER BY (i2), v",
        SAME,
        "SELECT t u v",
    ),
    (ALL, "SELECT t.from, t.join FROM t", SAME, "SELECT t"),
    (
        &[G],
        "INSERT ALL INTO a VALUES (1) INTO b (c) VALUES (2) SELECT * FROM d",
        "INSERT ALL INTO a VALUES (?) INTO b (c) VALUES (?) SELECT * FROM d",
        "INSERT a b SELECT d",
    ),
    (
        &[G],
        "INSERT FIRST WHEN x > 5 THEN INTO a ELSE INTO b SELECT x FROM d",
        "INSERT FIRST WHEN x > ? THEN INTO a ELSE INTO b SELECT x FROM d",
        "INSERT a b SELECT d",
    ),
    (&[G, P, M, B], "SELECT * FROM 'x'", "SELECT * FROM ?", "SELECT"),
    (&[G, P, M, B], "SELECT * FROM t.'x' JOIN 'y', 'z'", "SELECT * FROM t.? JOIN ?, ?", "SELECT t"),
    (&[G, P, M, B], "INSERT INTO 'x' VALUES (1)", "INSERT INTO ? VALUES (?)", "INSERT"),
    (&[G, P, M, B], "DROP TABLE 'x', 'y'", "DROP TABLE ?, ?", "DROP TABLE"),
    (&[S], "SELECT * FROM 'x' JOIN 'a secret'", "SELECT * FROM ? JOIN ?", "SELECT 'x'"),
];

const PARAMETERS: &[Case] = &[
    (ALL, "SELECT a FROM t WHERE b = ? AND c = :name AND d = @d", SAME, "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b = %s AND c = %(name)s", SAME, "SELECT t"),
    (&[P, G, S], "SELECT a FROM t WHERE b = $1 AND c = $12", SAME, "SELECT t"),
    (&[S], "SELECT a FROM t WHERE b = ?1 AND c = ?12 AND d = $name", SAME, "SELECT t"),
    (&[G], "SELECT a FROM t WHERE b = :1 AND c = :2", SAME, "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b = ?1234567", "SELECT a FROM t WHERE b = ??", "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b IN (?, ?, ?)", "SELECT a FROM t WHERE b IN (?)", "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b in(%s,%s)", "SELECT a FROM t WHERE b in(%s)", "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b NOT IN ( 'x' , ?, -3 )", "SELECT a FROM t WHERE b NOT IN (?)", "SELECT t"),
    (&[P], "SELECT a FROM t WHERE b IN ($1, $2)", SAME, "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b IN (x, 'y')", "SELECT a FROM t WHERE b IN (x, ?)", "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b IN (%s, 1)", "SELECT a FROM t WHERE b IN (%s, ?)", "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b IN ()", SAME, "SELECT t"),
    (ALL, "SELECT a FROM t WHERE b IN (1, 2", "SELECT a FROM t WHERE b IN (?, ?", "SELECT t"),
    (ALL, "SELECT a % 10, b%size FROM t", "SELECT a % ?, b%size FROM t", "SELECT t"),
    (
        &[P],
        "SELECT d->>'k', d @> '{}', d ? 'k', d ?| array['a'] FROM t",
        "SELECT d->>?, d @> ?, d ? ?, d ?| array[?] FROM t",
        "SELECT t",
    ),
    (&[M], "SELECT @@global.max_connections, @x := 5", "SELECT @@global.max_connections, @x := ?", "SELECT"),
];

const COMMENTS: &[Case] = &[
    (
        ALL,
        "/* from x */ SELECT a -- it's 5\nFROM t WHERE b = 1",
        "/* from x */ SELECT a -- it's 5\nFROM t WHERE b = ?",
        "SELECT t",
    ),
    (ALL, "SELECT a FROM t /*traceparent='00-1-2-01'*/", SAME, "SELECT t"),
    (ALL, "-- only a comment", SAME, ""),
    (ALL, "SELECT 1 /* never closed 'x", "SELECT ? /* never closed 'x", "SELECT"),
    (&[P], "SELECT 1 /* a /* b */ 'c' */, 2", "SELECT ? /* a /* b */ 'c' */, ?", "SELECT"),
    (&[M, S], "SELECT 1 /* a /* b */, 'c'", "SELECT ? /* a /* b */, ?", "SELECT"),
    (&[G], "SELECT a FROM t /* a /* b */, 'c' */", "SELECT a FROM t ?", "SELECT t"),
    (&[M], "SELECT 1 # it's\nFROM t", "SELECT ? # it's\nFROM t", "SELECT t"),
    (&[M], "SELECT /*!50001 'x', 5, */ a FROM t", "SELECT /*!50001 ?, ?, */ a FROM t", "SELECT t"),
    (&[M], "SELECT /*+ MAX_EXECUTION_TIME(1000) */ a FROM t", SAME, "SELECT t"),
    (&[M], "SELECT 5--x'00'", "SELECT ?--?", "SELECT"),
    (&[G], "SELECT a # it's\nFROM t WHERE b = 'x'", "SELECT a ?", "SELECT"),
    (
        &[G],
        "SELECT serial# FROM v$session WHERE sid# = 5",
        "SELECT serial# FROM v$session WHERE sid# = ?",
        "SELECT v$session",
    ),
    (&[G], "SELECT a # 5\nFROM t", "SELECT a # ?\nFROM t", "SELECT t"),
    (&[P], "SELECT 5 # 3, d #>> '{a}' FROM t", "SELECT ? # ?, d #>> ? FROM t", "SELECT t"),
    (ALL, "SELECT a FROM/* x */t", SAME, "SELECT t"),
];

const QUERIES: &[Case] = &[
    (
        ALL,
        "SELECT a FROM t1 LEFT OUTER JOIN t2 ON t1.x = t2.x INNER JOIN t3 USING (y), t4 AS z",
        SAME,
        "SELECT t1 t2 t3 t4",
    ),
    (ALL, "SELECT a FROM t1 NATURAL JOIN t2 CROSS JOIN t3", SAME, "SELECT t1 t2 t3"),
    (ALL, "SELECT a FROM (t1 JOIN t2 ON t1.a = t2.a), (t3)", SAME, "SELECT t1 t2 t3"),
    (
        ALL,
        "SELECT a FROM ((t1 JOIN t2 ON t1.a = t2.a) JOIN t3 ON 1)",
        "SELECT a FROM ((t1 JOIN t2 ON t1.a = t2.a) JOIN t3 ON ?)",
        "SELECT t1 t2 t3",
    ),
    (
        ALL,
        "SELECT a FROM (SELECT b FROM t1) x, (SELECT c FROM t2) y, t3",
        SAME,
        "SELECT SELECT t1 SELECT t2 t3",
    ),
    (ALL, "SELECT a, (SELECT max(b) FROM u) FROM t", SAME, "SELECT SELECT u t"),
    (
        ALL,
        "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.i = t.i)",
        "SELECT a FROM t WHERE EXISTS (SELECT ? FROM u WHERE u.i = t.i)",
        "SELECT t SELECT u",
    ),
    (ALL, "SELECT a FROM t WHERE b IN (SELECT c FROM u)", SAME, "SELECT t SELECT u"),
    (ALL, "SELECT a FROM t UNION ALL SELECT a FROM u", SAME, "SELECT t SELECT u"),
    (ALL, "(SELECT a FROM t) UNION (SELECT a FROM u) ORDER BY a, b", SAME, "SELECT t SELECT u"),
    (
        ALL,
        "SELECT a FROM t INTERSECT SELECT b FROM u EXCEPT SELECT c FROM v",
        SAME,
        "SELECT t SELECT u SELECT v",
    ),
    (
        ALL,
        "SELECT EXTRACT(YEAR FROM d), TRIM(BOTH 'x' FROM e) FROM t",
        "SELECT EXTRACT(YEAR FROM d), TRIM(BOTH ? FROM e) FROM t",
        "SELECT t",
    ),
    (
        ALL,
        "SELECT a FROM t WHERE a IS DISTINCT FROM 'x' AND b IS NOT DISTINCT FROM c",
        "SELECT a FROM t WHERE a IS DISTINCT FROM ? AND b IS NOT DISTINCT FROM c",
        "SELECT t",
    ),
    (ALL, "SELECT a IS DISTINCT FROM b FROM t", SAME, "SELECT t"),
    (ALL, "SELECT a FROM t ORDER BY b, c", SAME, "SELECT t"),
    (
        ALL,
        "SELECT a FROM t GROUP BY b, c HAVING count(*) > 5",
        "SELECT a FROM t GROUP BY b, c HAVING count(*) > ?",
        "SELECT t",
    ),
    (ALL, "SELECT a FROM t FOR UPDATE OF t, u", SAME, "SELECT t"),
    (ALL, "SELECT insert, update, delete FROM call", SAME, "SELECT call"),
    (ALL, "SELECT a FROM table", SAME, "SELECT table"),
    (ALL, "SeLeCt a fRoM Users", SAME, "SeLeCt Users"),
    (&[P], "SELECT a FROM ONLY t, LATERAL (SELECT b FROM u) x", SAME, "SELECT t SELECT u"),
    (
        &[P],
        "SELECT a FROM generate_series(1, 10) g, unnest($1) u",
        "SELECT a FROM generate_series(?, ?) g, unnest($1) u",
        "SELECT generate_series unnest",
    ),
    (
        ALL,
        "SELECT a FROM (VALUES (1, 2), (3, 4)) AS v(x, y)",
        "SELECT a FROM (VALUES (?, ?), (?, ?)) AS v(x, y)",
        "SELECT",
    ),
    (&[G], "SELECT a FROM t CROSS APPLY f(t.x) OUTER APPLY (SELECT b FROM u) y", SAME, "SELECT t f SELECT u"),
    (&[M], "SELECT a FROM t STRAIGHT_JOIN u USE INDEX (i, j)", SAME, "SELECT t u"),
    (ALL, "VALUES (1, 'a')", "VALUES (?, ?)", "VALUES"),
    (&[P], "TABLE t", SAME, "TABLE t"),
    (ALL, "EXPLAIN SELECT a FROM t", SAME, "EXPLAIN SELECT t"),
    (&[P], "EXPLAIN (ANALYZE, BUFFERS) DELETE FROM t", SAME, "EXPLAIN DELETE t"),
    (&[S], "EXPLAIN QUERY PLAN SELECT a FROM t", SAME, "EXPLAIN SELECT t"),
    (&[G], "SELECT TOP 10 a FROM t WITH (NOLOCK), u", "SELECT TOP ? a FROM t WITH (NOLOCK), u", "SELECT t u"),
];

const CTES: &[Case] = &[
    (ALL, "WITH x AS (SELECT a FROM t) SELECT * FROM x JOIN u ON x.a = u.a", SAME, "SELECT t SELECT u"),
    (
        ALL,
        "WITH x(a, b) AS (SELECT 1, 2), y AS (SELECT * FROM x) SELECT * FROM y, z",
        "WITH x(a, b) AS (SELECT ?, ?), y AS (SELECT * FROM x) SELECT * FROM y, z",
        "SELECT SELECT SELECT z",
    ),
    (
        ALL,
        "WITH RECURSIVE r AS (SELECT a FROM t UNION ALL SELECT t.a FROM t JOIN r ON t.p = r.a) SELECT * FROM r",
        SAME,
        "SELECT t SELECT t SELECT",
    ),
    (&[P, M], "WITH t AS (SELECT a FROM t) SELECT * FROM t", SAME, "SELECT t SELECT"),
    (
        &[P],
        "WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d",
        SAME,
        "DELETE t INSERT u SELECT",
    ),
    (
        &[P],
        "WITH x AS NOT MATERIALIZED (VALUES (1)) UPDATE t SET a = 1 FROM x, y",
        "WITH x AS NOT MATERIALIZED (VALUES (?)) UPDATE t SET a = ? FROM x, y",
        "UPDATE t y",
    ),
    (
        &[P],
        "WITH o AS (WITH i AS (SELECT a FROM t) SELECT * FROM i) SELECT * FROM o",
        SAME,
        "SELECT t SELECT SELECT",
    ),
    (ALL, "INSERT INTO u WITH x AS (SELECT a FROM t) SELECT * FROM x", SAME, "INSERT u SELECT t SELECT"),
    (ALL, "WITH x AS (SELECT a FROM t) SELECT * FROM s.x", SAME, "SELECT t SELECT s.x"),
];

const CHANGES: &[Case] = &[
    (ALL, "INSERT INTO s.t (a, b) VALUES (1, 'x')", "INSERT INTO s.t (a, b) VALUES (?, ?)", "INSERT s.t"),
    (
        &[P, S],
        "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2 RETURNING a",
        "INSERT INTO t (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET a = ? RETURNING a",
        "INSERT t",
    ),
    (
        &[M],
        "INSERT IGNORE t SET a = 1 ON DUPLICATE KEY UPDATE b = 2",
        "INSERT IGNORE t SET a = ? ON DUPLICATE KEY UPDATE b = ?",
        "INSERT t",
    ),
    (&[S], "INSERT OR REPLACE INTO t VALUES (?1)", SAME, "INSERT t"),
    (&[M, S], "REPLACE INTO t VALUES (1)", "REPLACE INTO t VALUES (?)", "REPLACE t"),
    (
        ALL,
        "UPDATE t SET a = 1, b = (SELECT c FROM u) WHERE d = 2",
        "UPDATE t SET a = ?, b = (SELECT c FROM u) WHERE d = ?",
        "UPDATE t SELECT u",
    ),
    (&[M], "UPDATE LOW_PRIORITY t1, t2 SET t1.a = t2.a", SAME, "UPDATE t1 t2"),
    (
        &[M],
        "UPDATE t1 JOIN t2 ON t1.a = t2.a SET t1.b = 1, t2.b = 2",
        "UPDATE t1 JOIN t2 ON t1.a = t2.a SET t1.b = ?, t2.b = ?",
        "UPDATE t1 t2",
    ),
    (&[S], "UPDATE OR ROLLBACK t SET a = 1", "UPDATE OR ROLLBACK t SET a = ?", "UPDATE t"),
    (ALL, "DELETE FROM t WHERE a = 1", "DELETE FROM t WHERE a = ?", "DELETE t"),
    (&[P], "DELETE FROM ONLY t USING u, v WHERE t.a = u.a", SAME, "DELETE t u v"),
    (
        &[M],
        "DELETE t1, t2 FROM t1 JOIN t2 USING (id) WHERE t1.a = 3",
        "DELETE t1, t2 FROM t1 JOIN t2 USING (id) WHERE t1.a = ?",
        "DELETE t1 t2",
    ),
    (&[G], "DELETE t WHERE a = 1", "DELETE t WHERE a = ?", "DELETE t"),
    (
        ALL,
        "MERGE INTO t USING s ON (t.a = s.a) WHEN MATCHED THEN UPDATE SET b = 1, c = 2 WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1, 2)",
        "MERGE INTO t USING s ON (t.a = s.a) WHEN MATCHED THEN UPDATE SET b = ?, c = ? WHEN NOT MATCHED THEN INSERT (a, b) VALUES (?, ?)",
        "MERGE t s",
    ),
    (ALL, "MERGE INTO t USING (SELECT a FROM u) s ON t.a = s.a", SAME, "MERGE t SELECT u"),
    (ALL, "TRUNCATE TABLE a, b", SAME, "TRUNCATE TABLE a b"),
    (ALL, "TRUNCATE t", SAME, "TRUNCATE t"),
    (
        &[P],
        "COPY t (a, b) FROM '/tmp/file' WITH (FORMAT csv)",
        "COPY t (a, b) FROM ? WITH (FORMAT csv)",
        "COPY t",
    ),
    (&[P], "COPY (SELECT a FROM t) TO STDOUT", SAME, "COPY SELECT t"),
    (&[M], "LOCK TABLES a WRITE, b READ", SAME, "LOCK TABLES a b"),
];

const DEFINITIONS: &[Case] = &[
    (
        ALL,
        "CREATE TABLE IF NOT EXISTS s.t (id INT DEFAULT 5, n VARCHAR(20) DEFAULT 'x')",
        "CREATE TABLE IF NOT EXISTS s.t (id INT DEFAULT ?, n VARCHAR(?) DEFAULT ?)",
        "CREATE TABLE s.t",
    ),
    (ALL, "create temporary table t as select a from u", SAME, "create table t select u"),
    (
        ALL,
        "CREATE TABLE t (a INT REFERENCES u (b) ON DELETE CASCADE ON UPDATE SET NULL)",
        SAME,
        "CREATE TABLE t",
    ),
    (ALL, "CREATE OR REPLACE VIEW v AS SELECT a FROM t", SAME, "CREATE VIEW v SELECT t"),
    (ALL, "CREATE UNIQUE INDEX i ON t (a, b)", SAME, "CREATE INDEX i"),
    (&[P], "CREATE INDEX CONCURRENTLY ON t (a)", SAME, "CREATE INDEX t"),
    (
        ALL,
        "ALTER TABLE t ADD COLUMN c INT DEFAULT 1",
        "ALTER TABLE t ADD COLUMN c INT DEFAULT ?",
        "ALTER TABLE t",
    ),
    (ALL, "DROP TABLE IF EXISTS a, s.b CASCADE", SAME, "DROP TABLE a s.b"),
    (&[P], "REFRESH MATERIALIZED VIEW CONCURRENTLY v", SAME, "REFRESH VIEW v"),
    (ALL, "CREATE DATABASE shop", SAME, "CREATE DATABASE shop"),
    (
        &[S],
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE u SET a = 1; DELETE FROM v; END",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE u SET a = ?; DELETE FROM v; END",
        "CREATE TRIGGER g",
    ),
    (
        &[P],
        "CREATE FUNCTION s.f(a int) RETURNS int AS $$ SELECT 'x' $$ LANGUAGE sql",
        "CREATE FUNCTION s.f(a int) RETURNS int AS ? LANGUAGE sql",
        "CREATE FUNCTION s.f",
    ),
    (
        &[M],
        "CREATE DEFINER='root'@'localhost' PROCEDURE p() SELECT a FROM t",
        "CREATE DEFINER=?@? PROCEDURE p() SELECT a FROM t",
        "CREATE PROCEDURE p",
    ),
    (&[M], "CREATE USER 'bob'@'host' IDENTIFIED BY 'pw'", "CREATE USER ?@? IDENTIFIED BY ?", "CREATE USER"),
];

const OTHERS: &[Case] = &[
    (ALL, "CALL s.p(1, 'x')", "CALL s.p(?, ?)", "CALL s.p"),
    (ALL, "{? = call p(?, 5)}", "{? = call p(?, ?)}", "call p"),
    (&[G], "EXEC @rc = dbo.p @id = 5, @name = N'x'", "EXEC @rc = dbo.p @id = ?, @name = ?", "EXEC dbo.p"),
    (&[G], "EXEC ('DROP TABLE t')", "EXEC (?)", "EXEC"),
    (&[G], "EXECUTE IMMEDIATE 'DROP TABLE t'", "EXECUTE IMMEDIATE ?", "EXECUTE"),
    (ALL, "BEGIN", SAME, "BEGIN"),
    (ALL, "begin transaction", SAME, "begin transaction"),
    (ALL, "START TRANSACTION READ ONLY", SAME, "START TRANSACTION"),
    (ALL, "COMMIT", SAME, "COMMIT"),
    (ALL, "ROLLBACK TO SAVEPOINT s1234", SAME, "ROLLBACK"),
    (ALL, "SAVEPOINT s1234", SAME, "SAVEPOINT"),
    (ALL, "SET search_path = 'x', 'y'", "SET search_path = ?, ?", "SET"),
    (ALL, "SHOW CREATE TABLE t", SAME, "SHOW"),
    (ALL, "GRANT SELECT ON t TO bob", SAME, "GRANT"),
    (&[S], "PRAGMA table_info('t')", "PRAGMA table_info(?)", "PRAGMA table_info"),
    (&[S], "PRAGMA key = 'secret'", "PRAGMA key = ?", "PRAGMA key"),
    (&[S], "ATTACH DATABASE 'file.db' AS other", "ATTACH DATABASE ? AS other", "ATTACH"),
    (ALL, "USE shop", SAME, "USE shop"),
    (&[P], "NOTIFY channel, 'text'", "NOTIFY channel, ?", "NOTIFY"),
    (&[P], "DECLARE c CURSOR FOR SELECT a FROM t", SAME, "DECLARE SELECT t"),
    (&[P], "PREPARE p AS SELECT a FROM t WHERE b = $1", SAME, "PREPARE SELECT t"),
    (ALL, "SELECT a FROM t; SELECT b FROM u", SAME, "SELECT t; SELECT u"),
    (ALL, ";; SELECT a FROM t;\n;", SAME, "SELECT t"),
    (
        ALL,
        "BEGIN; UPDATE t SET a = 1; COMMIT",
        "BEGIN; UPDATE t SET a = ?; COMMIT",
        "BEGIN; UPDATE t; COMMIT",
    ),
    (ALL, "SELECT a FROM (SELECT b FROM t; DELETE FROM u", SAME, "SELECT SELECT t; DELETE u"),
    (ALL, "", SAME, ""),
    (ALL, "   ", SAME, ""),
    (ALL, "something else entirely", SAME, ""),
    (ALL, "delete from 12345", "delete from ?", "delete"),
    (ALL, "select ((((", SAME, "select"),
    (ALL, "select ))))", SAME, "select"),
];

fn check(cases: &[Case]) -> usize {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for &(dialects, text, sanitized, short) in cases {
        let sanitized = if sanitized == SAME { text } else { sanitized };
        for &dialect in dialects {
            let analysis = analyze(text, dialect);
            if &*analysis.sanitized != sanitized {
                wrong.push(format!(
                    "{dialect:?} {text:?}\n  text    {:?}\n  wanted  {sanitized:?}",
                    analysis.sanitized
                ));
            }
            if &*analysis.summary != short {
                wrong.push(format!(
                    "{dialect:?} {text:?}\n  summary {:?}\n  wanted  {short:?}",
                    analysis.summary
                ));
            }
            let (mut alone, mut short_alone) = (String::from("kept "), String::from("kept "));
            sanitize(text, dialect, &mut alone);
            summary(text, dialect, &mut short_alone);
            assert_eq!(alone, format!("kept {}", analysis.sanitized));
            assert_eq!(short_alone, format!("kept {}", analysis.summary));
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
    checked
}

#[test]
fn examples_of_the_conventions_come_out_as_written_there() {
    check(CONVENTION);
}

#[test]
fn numbers_become_placeholders() {
    check(NUMBERS);
}

#[test]
fn strings_become_placeholders_in_every_dialect() {
    check(STRINGS);
}

#[test]
fn quoted_identifiers_stay_and_doubtful_ones_do_not() {
    check(QUOTES);
}

#[test]
fn a_text_in_double_quotes_is_no_name_where_sqlite_takes_it_for_a_value() {
    check(QUOTED_VALUES);
}

#[test]
fn names_that_django_and_sqlalchemy_quote_stay() {
    check(QUOTED_NAMES);
}

#[test]
fn what_two_systems_read_differently_shows_nothing_behind_it() {
    check(STEPS);
}

#[test]
fn values_without_quotes_become_placeholders() {
    check(BARE);
}

#[test]
fn keywords_count_where_they_are_some() {
    check(PLACES);
}

#[test]
fn parameters_stay_and_lists_collapse() {
    check(PARAMETERS);
}

#[test]
fn comments_stay_and_executed_ones_are_read() {
    check(COMMENTS);
}

#[test]
fn queries_name_their_tables_in_order() {
    check(QUERIES);
}

#[test]
fn common_table_expressions_are_no_targets() {
    check(CTES);
}

#[test]
fn changes_name_their_targets() {
    check(CHANGES);
}

#[test]
fn definitions_name_kind_and_object() {
    check(DEFINITIONS);
}

#[test]
fn procedures_transactions_and_batches_are_told() {
    check(OTHERS);
}

#[test]
fn the_operation_is_the_summarys_beginning() {
    for (text, operation) in [
        ("SELECT a FROM t", "SELECT"),
        ("create table t (a int)", "create table"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "SELECT"),
        ("TRUNCATE TABLE t", "TRUNCATE TABLE"),
        ("nothing known", ""),
    ] {
        assert_eq!(analyze(text, G).operation(), operation);
    }
}

#[test]
fn a_summary_ends_with_a_whole_name_within_255_characters() {
    let tables: Vec<String> = (0..40).map(|i| format!("a_rather_long_table_name_{i:02}")).collect();
    let analysis = analyze(&format!("SELECT * FROM {}", tables.join(", ")), P);
    assert_eq!(*analysis.summary, format!("SELECT {}", tables[..8].join(" ")));
    let long = "ä".repeat(248);
    assert_eq!(*analyze(&format!("SELECT a FROM {long}"), P).summary, format!("SELECT {long}"));
    assert_eq!(*analyze(&format!("SELECT a FROM {long}ä"), P).summary, *"SELECT");
    assert_eq!(*analyze(&format!("SELECT a FROM short, s.{long}, t"), P).summary, *"SELECT short");
}

#[test]
fn a_statement_that_is_repeated_is_told_once() {
    let batch = |rows: usize| vec!["INSERT INTO t (a) VALUES ('x')"; rows].join(";");
    for rows in [1, 2, 100, 1000] {
        assert_eq!(*analyze(&batch(rows), P).summary, *"INSERT t");
        assert_eq!(
            *analyze(&format!("BEGIN; {}; COMMIT;", batch(rows)), P).summary,
            *"BEGIN; INSERT t; COMMIT"
        );
    }
    let taking_turns = "DELETE FROM a; DELETE FROM b; DELETE FROM a";
    assert_eq!(*analyze(taking_turns, P).summary, *"DELETE a; DELETE b; DELETE a");
    assert_eq!(*analyze("DELETE FROM a; ; nothing known; DELETE FROM a", P).summary, *"DELETE a");
    assert_eq!(*analyze("DELETE FROM a; DELETE FROM a JOIN b", M).summary, *"DELETE a; DELETE a b");
    // Cut in the middle of the repetition.
    let long: Vec<String> = (0..20).map(|i| format!("table_{i:02}")).collect();
    let long = format!("SELECT * FROM {}", long.join(", "));
    let once = analyze(&long, P).summary;
    assert_eq!(analyze(&format!("{long}; {long}"), P).summary, once);
}

#[test]
fn dialects_go_by_their_system_name() {
    for (name, dialect) in [
        ("postgresql", P),
        ("mysql", M),
        ("mariadb", M),
        ("sqlite", S),
        ("oracle.db", G),
        ("", G),
        ("gcp.spanner", B),
        ("bigquery", B),
    ] {
        assert_eq!(Dialect::from_name(name), dialect);
    }
}
