// Reads a topic in Node, as a group of its own: node consume.js shop orders mailer
const { createClient } = require("redis");

async function main([namespace, topic, group]) {
  const [log, me] = [`{${namespace}:${topic}}:log`, `node-${process.pid}`];
  const server = createClient({ url: process.env.REDSTART_REDIS_URL });
  await server.connect();
  await server.xGroupCreate(log, group, "0", { MKSTREAM: true }).catch((error) => {
    if (!error.message.includes("BUSYGROUP")) throw error;
  });
  for (;;) {
    // A consumer that died leaves its messages: any other takes them over after a minute.
    const claimed = await server.xAutoClaim(log, group, me, 60_000, "0", { COUNT: 10 });
    const streams = await server.xReadGroup(group, me, { key: log, id: ">" }, { COUNT: 10, BLOCK: 1_000 });
    for (const { id, message } of [...claimed.messages, ...(streams?.[0]?.messages ?? [])]) {
      const { type, payload } = JSON.parse(message.json);
      console.log(type, JSON.stringify(payload));
      await server.xAck(log, group, id);
    }
  }
}

main(process.argv.slice(2));
