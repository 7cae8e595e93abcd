// An Express application whose sessions are in Olivia, by connect-redis.
//
//     npm ci --prefix examples/node && node examples/node/sessions.mjs
//
// Then: curl -c cookies -b cookies http://127.0.0.1:8000/
// Environment: OLIVIA_URL (redis://127.0.0.1:5454/0; with a password redis://:PASSWORD@HOST:PORT/0), PORT (8000).

import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import { createClient } from 'redis';

const client = createClient({ url: process.env.OLIVIA_URL ?? 'redis://127.0.0.1:5454/0' });
client.on('error', (error) => console.error(`${error}`));
await client.connect();

const app = express();
app.use(
  session({
    store: new RedisStore({ client, prefix: 'session:', ttl: 3600 }),
    secret: "an example's; a site draws its own",
    resave: false,
    saveUninitialized: false,
  }),
);

app.get('/', (request, response) => {
  request.session.visits = (request.session.visits ?? 0) + 1;
  response.json({ visits: request.session.visits });
});

app.post('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.json({})));
});

const server = app.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
