"""asyncpg on a tenant's database; libpq's environment names it. Prints `ok` when everything held."""

import asyncio
import os
import ssl

import asyncpg


async def main():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    options = dict(
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        user=os.environ["PGUSER"],
        password=os.environ["PGPASSWORD"],
        database=os.environ["PGDATABASE"],
        ssl=context,
    )
    pool = await asyncpg.create_pool(min_size=1, max_size=8, **options)
    await pool.execute("TRUNCATE items")
    await pool.executemany("INSERT INTO items (id, name) VALUES ($1, $2)", [(n, f"item {n}") for n in range(500)])

    async def read(n):
        assert await pool.fetchval("SELECT name FROM items WHERE id = $1", n) == f"item {n}"

    await asyncio.gather(*(read(n) for n in range(500)))

    async with pool.acquire() as conn:
        statement = await conn.prepare("SELECT id FROM items WHERE id < $1 ORDER BY id")
        assert [row["id"] for row in await statement.fetch(3)] == [0, 1, 2]
        async with conn.transaction():
            seen = [row["id"] async for row in conn.cursor("SELECT id FROM items ORDER BY id", prefetch=7)]
            assert len(seen) == 500
            try:
                async with conn.transaction():
                    await conn.execute("DELETE FROM items")
                    raise KeyError
            except KeyError:
                pass
            assert await conn.fetchval("SELECT count(*) FROM items") == 500
        await conn.copy_records_to_table("items", records=[(n, f"copied {n}") for n in range(1000, 3000)])
        assert await conn.fetchval("SELECT count(*) FROM items") == 2500
        try:
            await conn.execute("ALTER TABLE items ADD COLUMN x int")
            raise AssertionError("not refused")
        except asyncpg.InsufficientPrivilegeError as error:
            assert "DDL not allowed" in str(error)
        try:
            await conn.fetch("SELECT pg_sleep(60)", timeout=0.3)
            raise AssertionError("not timed out")
        except asyncio.TimeoutError:
            pass
        assert await conn.fetchval("SELECT 1") == 1
    await pool.close()
    print("ok")


asyncio.run(main())
