// ioredis on a tenant's database; REDIS_URL and REDIS_CA name it. Prints `ok` when everything held.
const assert = require("assert");
const fs = require("fs");
const { Redis } = require("ioredis");

const url = process.env.REDIS_URL;
const tls = url.startsWith("rediss:") ? { tls: { ca: fs.readFileSync(process.env.REDIS_CA) } } : {};
const connect = (options = {}) => new Redis(url, { ...tls, ...options });

async function commands(r) {
  await r.flushdb();
  assert.strictEqual(await r.set("greeting", "hello"), "OK");
  assert.strictEqual(await r.get("greeting"), "hello");
  await r.mset(Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`k${n}`, n])));
  const found = [];
  for await (const keys of r.scanStream({ match: "k*", count: 10 })) found.push(...keys);
  assert.strictEqual(new Set(found).size, 100);
  assert(found.every((key) => key.startsWith("k")));
  await r.rpush("list", "a", "b");
  assert.deepStrictEqual(await r.blpop("none", "list", 1), ["list", "a"]);
  await r.xadd("stream", "1-1", "f", "v");
  assert.deepStrictEqual(await r.xread("STREAMS", "stream", "0"), [["stream", [["1-1", ["f", "v"]]]]]);
  const large = Buffer.alloc(1 << 20, "\r\n\0");
  await r.set("large", large);
  assert(large.equals(await r.getBuffer("large")));
  r.defineCommand("add", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
  assert.strictEqual(await r.add("counter", 5), 5);
}

async function transactions(r) {
  const results = await r.multi().set("x", 1).incr("x").keys("x").exec();
  assert.deepStrictEqual(results, [[null, "OK"], [null, 2], [null, ["x"]]]);
  const pipeline = r.pipeline();
  for (let n = 0; n < 2000; n++) pipeline.set(`p${n % 50}`, n).get(`p${n % 50}`);
  const replies = await pipeline.exec();
  for (let n = 0; n < 2000; n++) assert.deepStrictEqual(replies[2 * n + 1], [null, String(n)]);
  const other = connect();
  await other.watch("x");
  await r.incr("x");
  assert.strictEqual(await other.multi().incr("x").exec(), null);
  other.disconnect();
}

async function messages(r) {
  const subscriber = connect();
  const heard = [];
  const both = new Promise((done) => {
    const hear = (...it) => heard.push(it.join(" ")) === 2 && done();
    subscriber.on("message", (channel, text) => hear("message", channel, text));
    subscriber.on("pmessage", (pattern, channel, text) => hear("pmessage", pattern, channel, text));
  });
  await subscriber.subscribe("news");
  await subscriber.psubscribe("n*");
  await r.publish("news", "hello");
  await both;
  assert.deepStrictEqual(heard.sort(), ["message news hello", "pmessage n* news hello"]);
  // The connection serves again as any other.
  await subscriber.unsubscribe("news");
  await subscriber.punsubscribe("n*");
  assert.strictEqual(await subscriber.get("greeting"), "hello");
  subscriber.disconnect();
}

async function refusals(r) {
  await assert.rejects(r.config("GET", "*"), /^ReplyError: NOPERM /);
  await assert.rejects(r.select(1), /^ReplyError: ERR DB index is out of range/);
  await assert.rejects(r.eval("return redis.call('GET', 'elsewhere')", 0), /key/);
}

async function many() {
  const clients = Array.from({ length: 30 }, () => connect());
  await Promise.all(clients.map((it, n) => it.set(`many${n}`, n)));
  const values = await Promise.all(clients.map((it, n) => it.get(`many${(n + 1) % 30}`)));
  assert.deepStrictEqual(values, clients.map((_, n) => String((n + 1) % 30)));
  for (const client of clients) client.disconnect();
}

async function main() {
  const r = connect();
  await commands(r);
  await transactions(r);
  await messages(r);
  await refusals(r);
  await many();
  await r.quit();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
