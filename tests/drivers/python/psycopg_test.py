"""psycopg 3 on a tenant's database; libpq's environment names it. Prints `ok` when everything held."""

import psycopg
from psycopg import errors

DDL_REFUSED = "DDL not allowed on tenant databases. Deploy schema through blueprints."


def refused(conn, kind, statement, *args):
    try:
        conn.execute(statement, *args)
    except kind as error:
        return error
    raise AssertionError(f"not refused: {statement}")


with psycopg.connect(autocommit=True) as conn:
    assert conn.info.dbname == conn.execute("SELECT current_database()").fetchone()[0]
    conn.execute("TRUNCATE items")

    # Prepared from the first execution on, and again by name after many others.
    for n in range(30):
        conn.execute("INSERT INTO items (id, name) VALUES (%s, %s)", (n, f"item {n}"), prepare=True)
    for n in range(30):
        row = conn.execute("SELECT name FROM items WHERE id = %s", (n,), prepare=True).fetchone()
        assert row == (f"item {n}",), row

    # Transactions, savepoints, errors in them.
    with conn.transaction():
        conn.execute("DELETE FROM items WHERE id = 0")
        try:
            with conn.transaction():
                conn.execute("DELETE FROM items")
                conn.execute("SELECT 1 / 0")
        except errors.DivisionByZero:
            pass
        assert conn.execute("SELECT count(*) FROM items").fetchone() == (29,)

    # COPY in both directions, text and binary.
    with conn.cursor().copy("COPY items (id, name) FROM STDIN") as copy:
        for n in range(1000, 6000):
            copy.write_row((n, f"copied {n}"))
    with conn.cursor().copy("COPY (SELECT id, name FROM items WHERE id >= 1000 ORDER BY id) TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "text"])
        rows = list(copy.rows())
    assert rows[0] == (1000, "copied 1000") and len(rows) == 5000

    # A server-side cursor, and one that outlives its transaction.
    with conn.transaction(), conn.cursor(name="c") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT id FROM items ORDER BY id")
        assert sum(1 for _ in cursor) == 5029
    with psycopg.connect() as other, other.cursor(name="held", withhold=True) as cursor:
        cursor.execute("SELECT id FROM items ORDER BY id")
        assert cursor.fetchone() == (1,)
        other.commit()
        assert cursor.fetchone() == (2,)

    # A pipeline with an error in the middle.
    with conn.pipeline() as pipeline:
        first = conn.execute("SELECT 1")
        try:
            conn.execute("SELECT nonsense")
            pipeline.sync()
        except errors.UndefinedColumn:
            pass
        last = conn.execute("SELECT 3")
        pipeline.sync()
        assert first.fetchone() == (1,) and last.fetchone() == (3,)

    # Settings of the session survive what others do in between.
    conn.execute("SET application_name = 'mine'")
    conn.execute("SELECT set_config('app.tenant', '42', false)")
    with psycopg.connect(autocommit=True) as other:
        assert other.execute("SELECT current_setting('app.tenant', true)").fetchone()[0] in (None, "")
    assert conn.execute("SHOW application_name").fetchone() == ("mine",)
    assert conn.execute("SELECT current_setting('app.tenant')").fetchone() == ("42",)

    # Notices and notifications.
    notices = []
    conn.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    assert notices == ["noticed"], notices
    conn.execute("LISTEN news")
    with psycopg.connect(autocommit=True) as other:
        other.execute("NOTIFY news, 'hello'")
    note = next(conn.notifies(timeout=30))
    assert (note.channel, note.payload) == ("news", "hello")
    conn.execute("UNLISTEN *")

    # What is refused, and what is not text.
    error = refused(conn, errors.InsufficientPrivilege, "DROP TABLE items")
    assert error.diag.message_primary == DDL_REFUSED
    refused(conn, errors.InsufficientPrivilege, "CREATE TABLE x (id int)")
    large = bytes(range(256)) * 8192
    assert conn.execute("SELECT %b::bytea", (large,)).fetchone() == (large,)

    # Cancelling.
    import threading

    timer = threading.Timer(0.3, conn.cancel_safe)
    timer.start()
    refused(conn, errors.QueryCanceled, "SELECT pg_sleep(60)")
    assert conn.execute("SELECT 1").fetchone() == (1,)

print("ok")
