// The application whose clients and backends the tests are: it writes down what it is told, for tests that ask what came, and answers
// what it is asked. Prints its port.
//
//   POST /hook               a question of docs/hooks.md; GET /hook answers with those that came, but for the greetings of clients
//                            that say nothing
//   POST /<place>            a webhook of Pusher's; GET /<place> answers with all of them as they came
//   POST /<place>/<channel>  has the next one that speaks of the channel answered with 503; what comes to /broken never is taken

import { createServer } from "node:http";

const kept = new Map();
const busy = new Set();

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** What a question is answered. */
function answered({ type, method, data, user, meta }) {
  if (type === "connect") return { user: data?.as };
  if (type !== "call") return {};
  if (method === "price") return { data: { of: data, for: user, plan: meta?.plan } };
  return { error: { reason: "forbidden", message: "no such method" } };
}

const server = createServer(async (request, response) => {
  const [, place, channel] = request.url.split("/");
  if (!kept.has(place)) kept.set(place, []);
  if (request.method === "GET") return response.end(JSON.stringify(kept.get(place)));
  const text = await body(request);
  if (place === "hook") {
    const question = JSON.parse(text);
    if (question.type !== "connect" || question.data !== undefined) kept.get(place).push(question);
    return response.end(JSON.stringify(answered(question)));
  }
  if (channel) {
    busy.add(channel);
    return response.end();
  }
  kept.get(place).push({ headers: request.headers, body: text });
  const refused = [...busy].find((channel) => text.includes(channel));
  response.writeHead(busy.delete(refused) || place === "broken" ? 503 : 200).end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
