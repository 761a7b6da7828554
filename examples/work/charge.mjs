// A handler in JavaScript for `redstart work orders billing --exec 'node charge.mjs'`.
//
// The payload is JSON on the standard input, the rest is in the environment. The exit code ends the
// attempt: 0 done, 65 dead letter, 69 try again later without counting, any other a failed attempt.

import { readFileSync } from "node:fs";

const DATA_ERROR = 65;
const UNAVAILABLE = 69;

// The message's id makes a repeated charge harmless.
function charge(order, messageId) {
  console.log(`charged ${order.cents} cents for ${messageId}`);
}

function main() {
  const order = JSON.parse(readFileSync(0, "utf8"));
  if (order.cents === undefined) {
    console.error("an order without a price");
    return DATA_ERROR;
  }
  if (process.env.BANK === "closed") {
    console.error("the bank is closed");
    return UNAVAILABLE;
  }
  if (order.flaky && process.env.REDSTART_ATTEMPT === "1") {
    throw new Error("the first attempt fails");
  }
  charge(order, process.env.REDSTART_MESSAGE_ID);
  return 0;
}

process.exitCode = main();
