// A function whose results are cached in Olivia, by cache-manager and Keyv.
//
//     npm ci --prefix examples/node && node examples/node/cache.mjs

import { createKeyv } from '@keyv/redis';
import { createCache } from 'cache-manager';

const url = process.env.OLIVIA_URL ?? 'redis://127.0.0.1:5454/0';
const store = createKeyv(url, { namespace: 'site' });
store.on('error', (error) => console.error(String(error)));
const cache = createCache({ stores: [store], ttl: 60_000 });

let computations = 0;
const square = (number) =>
  cache.wrap(`square:${number}`, async () => {
    computations += 1;
    return { square: number * number };
  });

await cache.clear();
console.log(await square(12), await square(12), `computed ${computations} time(s)`);

await cache.mset([
  { key: 'a', value: 1 },
  { key: 'b', value: [2], ttl: 1_000 },
]);
console.log('a and b:', await cache.mget(['a', 'b']));
await new Promise((resolve) => setTimeout(resolve, 1_200));
console.log('1.2 s later:', await cache.mget(['a', 'b']));
await cache.del('a');
console.log('after del:', await cache.get('a'));
await cache.disconnect();
