// Publishes an order from Node: node publish.js shop orders '{"cents":1250}'
const { createClient } = require("redis");

async function main([namespace, topic, payload]) {
  const server = createClient({ url: process.env.REDSTART_REDIS_URL });
  await server.connect();
  const envelope = { type: "order.placed", payload: JSON.parse(payload) };
  console.log(await server.xAdd(`{${namespace}:${topic}}:log`, "*", { json: JSON.stringify(envelope) }));
  await server.quit();
}

main(process.argv.slice(2));
