// node-postgres on a tenant's database; libpq's environment names it. Prints `ok` when everything held.
'use strict';
const fs = require('fs');
const assert = require('assert');
const { Pool } = require('pg');

async function main() {
  const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT, 'utf8') };
  const pool = new Pool({ ssl, max: 6 });
  await pool.query('TRUNCATE items');
  for (let n = 0; n < 50; n += 1) {
    await pool.query({ name: 'add', text: 'INSERT INTO items (id, name) VALUES ($1, $2)', values: [n, `item ${n}`] });
  }
  const reads = Array.from({ length: 200 }, (_, n) =>
    pool.query({ name: 'read', text: 'SELECT name FROM items WHERE id = $1', values: [n % 50] }));
  (await Promise.all(reads)).forEach((result, n) => assert.strictEqual(result.rows[0].name, `item ${n % 50}`));
  const client = await pool.connect();
  await client.query('BEGIN');
  await client.query('DELETE FROM items');
  await client.query('ROLLBACK');
  assert.strictEqual((await client.query('SELECT count(*)::int AS n FROM items')).rows[0].n, 50);
  await assert.rejects(client.query('DROP TABLE items'), (error) => error.code === '42501' && /DDL not allowed/.test(error.message));
  await assert.rejects(client.query('SELECT nonsense'), (error) => error.code === '42703');
  assert.strictEqual((await client.query("SELECT $1::text || 'é' AS t", ['ü'])).rows[0].t, 'üé');
  client.release();
  await pool.end();
  console.log('ok');
}

main().catch((error) => { console.error(error); process.exit(1); });
