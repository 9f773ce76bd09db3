// An application that writes down its webhooks, for tests that ask it what came: POST /<place> is a webhook, GET /<place> answers
// with all of them as they came, POST /<place>/<channel> has the next one that speaks of the channel answered with 503. What comes
// to /broken never is taken.
// Prints its port.

import { createServer } from "node:http";

const kept = new Map();
const busy = new Set();

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

const server = createServer(async (request, response) => {
  const [, app, channel] = request.url.split("/");
  if (!kept.has(app)) kept.set(app, []);
  if (request.method === "GET") return response.end(JSON.stringify(kept.get(app)));
  const text = await body(request);
  if (channel) {
    busy.add(channel);
    return response.end();
  }
  kept.get(app).push({ headers: request.headers, body: text });
  const refused = [...busy].find((channel) => text.includes(channel));
  response.writeHead(busy.delete(refused) || app === "broken" ? 503 : 200).end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
