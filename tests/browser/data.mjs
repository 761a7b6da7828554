// Data for the suite: groups with waiting, scheduled and dead messages, and hostile text in every field.

import { run, work } from "./ground.mjs";

export const HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\u200b'\"&";

/** Lines of an export, as another console or the tool wrote them. */
function letters(count, make) {
  const lines = [];
  for (let n = 0; n < count; n += 1) {
    const { error, fingerprint, type = "order.placed", tenant, payload } = make(n);
    const uuid = `01a21b32-9fc6-71aa-a72d-${n.toString(16).padStart(12, "0")}`;
    const envelope = JSON.stringify({
      id: uuid, type, ts: "2026-03-01T13:59:58.000Z", corrId: `cart-${n % 997}`, tenantId: tenant,
      payload, attempts: 0,
    });
    const at = new Date(Date.UTC(2026, 2, 1, 14, 0, 0) + n).toISOString();
    lines.push(JSON.stringify({
      redstart: 1, id: `${Date.parse(at)}-${n}`, died: at, topic: "orders", group: "billing",
      reason: "exhausted", error, fingerprint, handler: "charge", consumer: "billing-7f", type,
      tenantId: tenant, corrId: `cart-${n % 997}`, messageId: uuid, attempts: 5, lastFailure: at,
      origin: `${Date.parse(at) - 60000}-0`, firstFailure: at,
      history: [{ number: 5, at, consumer: "billing-7f", error }], redriven: 0,
      fields: [["json", envelope]],
    }));
  }
  return `${lines.join("\n")}\n`;
}

/** 60,000 dead letters of which 48,211 have one cause. */
export function incident(redis) {
  const lines = letters(60_000, (n) => (n < 48_211
    ? { error: `gateway timeout after ${n} ms`, fingerprint: "gateway timeout after # ms", tenant: n % 3 ? "acme" : "globex", payload: { cents: n } }
    : { error: "card declined", fingerprint: "card declined", tenant: "acme", payload: { cents: n } }));
  run(redis, ["dead", "import", "orders", "billing"], lines);
}

/** A shop with a little of everything. */
export async function shop(redis) {
  const payloads = (count, make) => Array.from({ length: count }, (_, n) => JSON.stringify(make(n))).join("\n");
  run(redis, ["publish", "orders", "--type", "order.placed", "--tenant", "acme"],
    payloads(12, (n) => ({ order: 1000 + n, cents: 1250, lines: [{ sku: "A-7", count: 2 }] })));
  await work(redis, "orders", "billing", "echo card declined >&2; exit 65");
  run(redis, ["publish", "orders", "--type", "order.placed", "--header", "region=eu"],
    payloads(40, (n) => ({ order: 2000 + n, cents: 990 })));
  run(redis, ["publish", "mails", "--type", "mail.confirmation"], payloads(6, (n) => ({ to: `customer ${n}` })));
  await work(redis, "mails", "mailer", "echo the relay is away >&2; exit 75");
  run(redis, ["publish", "audit", "--type", "audit.login"], payloads(3, (n) => ({ user: n })));
}

/** Hostile text in every field of messages and of their errors. */
export async function hostile(redis) {
  const deep = `${"[".repeat(64)}1${"]".repeat(64)}`;
  const lines = [
    JSON.stringify(HOSTILE),
    JSON.stringify({ [HOSTILE]: [HOSTILE, { [HOSTILE]: HOSTILE }] }),
    deep,
    "[18446744073709551616, 123456789012345678901234567890, 0.1]",
    JSON.stringify("x".repeat(900_000)),
  ];
  run(redis, ["publish", "hostile", "--type", HOSTILE.slice(0, 60), "--tenant", HOSTILE, "--key", HOSTILE,
    "--correlation", HOSTILE, "--header", `${HOSTILE.replace("=", "-")}=${HOSTILE}`], lines.join("\n"));
  await work(redis, "hostile", "victim", `cat >&2 <<'END'\n${HOSTILE}\nEND\nexit 65`);
}
