// node-redis (RESP2 and RESP3), ioredis and iovalkey. Usage: libraries.mjs PORT
// A check of commands that the server does not have is skipped.

import assert from 'node:assert/strict';
import { createClient } from 'redis';
import Redis from 'ioredis';
import Valkey from 'iovalkey';

const port = Number(process.argv[2]);
const binary = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const large = Buffer.alloc(5_000_001, '0123456789abcdef');
const failed = [];
const skipped = new Set();
let passed = 0;

async function check(label, has, needed, run) {
  const lacks = needed.filter((name) => !has.has(name));
  if (lacks.length > 0) {
    skipped.add(`${label.split(': ')[1]}: no ${lacks.join(', ')}`);
    return;
  }
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('no reply within 20 s')), 20_000);
  });
  try {
    await Promise.race([run(), late]);
    passed += 1;
  } catch (error) {
    failed.push(label);
    console.error(`FAILED ${label}:`, error);
  } finally {
    clearTimeout(timer);
  }
}

// The checks, on one function that sends a request and gives the reply, errors thrown.
async function checkAll(name, has, send) {
  const on = (label, needed, run) => check(`${name}: ${label}`, has, needed, run);
  await on('values read back', ['SET', 'GET', 'DEL'], async () => {
    for (const [key, value] of [['k', 'v'], ['', ''], ['a\r\nb', 'ü,:"']]) {
      assert.equal(await send('SET', key, value), 'OK');
      assert.equal(await send('GET', key), value);
      assert.equal(await send('DEL', key), 1);
      assert.equal(await send('GET', key), null);
    }
  });
  await on('mget keeps order', ['MGET', 'SET', 'DEL'], async () => {
    await send('SET', 'a', '1');
    await send('SET', 'b', '2');
    assert.deepEqual(await send('MGET', 'b', 'nope', 'a'), ['2', null, '1']);
    assert.equal(await send('DEL', 'a', 'b', 'nope'), 2);
  });
  await on('requests without waiting are answered in order', ['INCR', 'DEL'], async () => {
    await send('DEL', 'n');
    const replies = await Promise.all(Array.from({ length: 2_000 }, () => send('INCR', 'n')));
    assert.deepEqual(replies, Array.from({ length: 2_000 }, (_, at) => at + 1));
    await send('DEL', 'n');
  });
  await on('errors have their texts', ['GET', 'SET', 'INCR', 'DEL'], async () => {
    await assert.rejects(send('GET'), /^\w*Error: ERR wrong number of arguments for 'get' command/);
    await assert.rejects(send('NOSUCH', 'a'), /ERR unknown command 'NOSUCH', with args beginning with: 'a'/);
    await send('SET', 'x', 'y');
    await assert.rejects(send('INCR', 'x'), /ERR value is not an integer or out of range/);
    await send('DEL', 'x');
  });
  await on('expiry', ['SET EX', 'TTL', 'DEL'], async () => {
    assert.equal(await send('SET', 't', 'v', 'EX', '100'), 'OK');
    assert.ok([99, 100].includes(Number(await send('TTL', 't'))));
    await send('DEL', 't');
  });
  await on('scan', ['SCAN', 'SET', 'DEL'], async () => {
    await Promise.all(Array.from({ length: 300 }, (_, at) => send('SET', `scan:${at}`, '1')));
    const found = new Set();
    let cursor = '0';
    do {
      const [next, keys] = await send('SCAN', cursor, 'MATCH', 'scan:*', 'COUNT', '7');
      keys.forEach((key) => found.add(key));
      cursor = String(next);
    } while (cursor !== '0');
    assert.equal(found.size, 300);
    assert.equal(await send('DEL', ...found), 300);
  });
}

async function names(send) {
  const all = new Set((await send('COMMAND')).map((entry) => String(entry[0]).toUpperCase()));
  await send('SET', 'probe', 'v', 'EX', '100').then(() => all.add('SET EX'), () => {});
  await send('DEL', 'probe');
  return all;
}

async function nodeRedis(RESP) {
  const name = `node-redis RESP${RESP}`;
  const client = createClient({ socket: { port, host: '127.0.0.1', reconnectStrategy: false }, RESP });
  client.on('error', (error) => failed.push(`${name}: ${error}`));
  await client.connect();
  const send = (...args) => client.sendCommand(args);
  const has = await names(send);
  await checkAll(name, has, send);
  await check(`${name}: typed commands`, has, ['SET', 'GET', 'MGET', 'INCR', 'DEL'], async () => {
    assert.equal(await client.set('a', binary), 'OK');
    assert.equal(await client.set('b', '5'), 'OK');
    assert.deepEqual(await client.mGet(['nope', 'b']), [null, '5']);
    assert.equal(await client.incr('b'), 6);
    assert.equal(await client.del(['a', 'b']), 2);
    assert.equal(await client.get('a'), null);
  });
  await check(`${name}: multi`, has, ['MULTI', 'EXEC', 'SET', 'INCR', 'DEL'], async () => {
    assert.deepEqual(await client.multi().set('a', '1').incr('a').del('a').exec(), ['OK', 2, 1]);
  });
  await client.close();
}

async function ioredis(name, Client) {
  const probe = new Client({ port, lazyConnect: true, retryStrategy: null, enableReadyCheck: false });
  probe.on('error', (error) => failed.push(`${name}: ${error}`));
  await probe.connect();
  const has = await names((...args) => probe.call(...args));
  await probe.quit().catch(() => probe.disconnect());
  // The ready check reads INFO.
  const client = new Client({ port, lazyConnect: true, retryStrategy: null, enableReadyCheck: has.has('INFO') });
  client.on('error', (error) => failed.push(`${name}: ${error}`));
  await client.connect();
  await checkAll(name, has, (...args) => client.call(...args));
  await check(`${name}: buffers`, has, ['SET', 'GET', 'DEL'], async () => {
    for (const value of [binary, large]) {
      assert.equal(await client.set('buffer', value), 'OK');
      assert.deepEqual(await client.getBuffer('buffer'), value);
    }
    assert.equal(await client.del('buffer'), 1);
  });
  await check(`${name}: pipeline`, has, ['SET', 'GET', 'INCR', 'DEL'], async () => {
    const replies = await client.pipeline().set('p', 1).incr('p').get('p').get('nope').del('p').exec();
    assert.deepEqual(replies, [[null, 'OK'], [null, 2], [null, '2'], [null, null], [null, 1]]);
  });
  client.disconnect();
}

await nodeRedis(2);
await nodeRedis(3);
await ioredis('ioredis', Redis);
await ioredis('iovalkey', Valkey);
console.log(`node-redis, ioredis, iovalkey: ${passed} passed, ${failed.length} failed, ${skipped.size} skipped`);
skipped.forEach((text) => console.log(`  skipped ${text}`));
process.exit(failed.length > 0 ? 1 : 0);
