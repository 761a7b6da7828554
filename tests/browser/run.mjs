// The console in Debian's Chromium: keyboard, live figures, outages, no JavaScript, a proxy, axe.
// PICTURES=folder keeps the pictures of the README and of the guide.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { HOSTILE, hostile, incident, shop } from "./data.mjs";
import { Console, PATIENCE, Redis, browser, group, open, proxy, run, until } from "./ground.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** A busy machine searches 60,000 dead letters in longer than a page usually takes. */
const PATIENT = ["--search-time", "60s"];
let chrome, redis, site;

before(async () => {
  [chrome, redis] = await Promise.all([browser(), Redis.start()]);
  await shop(redis);
  await hostile(redis);
  site = await Console.start(redis, PATIENT);
});

after(async () => {
  await chrome?.close();
  await site?.kill();
  await redis?.remove();
});

/** Every page of the console, with data on each. */
async function pages(base = "") {
  const json = (args) => JSON.parse(run(redis, [...args, "--json"]).trim().split("\n")[0]);
  const letter = json(["dead", "list", "orders", "billing", "--max", "1"]).id;
  const strange = json(["dead", "list", "hostile", "victim", "--max", "1"]).id;
  const entry = json(["tail", "orders", "--last", "1"]).id;
  return ["/", "/topics/orders", "/topics/hostile", `/topics/orders/entries/${entry}`,
    "/topics/orders/groups/billing", "/topics/orders/groups/billing/remove", "/retries/mails/mailer",
    "/retries/mails/mailer/plan?all=1&action=cancel", "/dead", "/dead/orders/billing",
    "/dead/orders/billing?error=declined", "/dead/orders/billing?error=none", "/dead/hostile/victim",
    `/dead/orders/billing/${letter}`, `/dead/hostile/victim/${strange}`,
    `/dead/orders/billing/${letter}/edit`, "/dead/orders/billing/sweep?all=1&action=redrive",
    "/dead/orders/billing/sweep?all=1&action=purge", "/operations", "/doctor", "/nothing",
  ].map((path) => base + path);
}

async function violations(page) {
  // The page's policy forbids scripts of others: the test adds its own from outside.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(", ")}`);
}

/** Presses Tab until a control with this text has the focus. */
async function tabTo(page, name) {
  for (let step = 0; step < 200; step += 1) {
    await page.keyboard.press("Tab");
    const text = await page.evaluate(() => {
      const one = document.activeElement;
      if (!["A", "BUTTON", "INPUT"].includes(one.tagName)) return "";
      return [one.textContent, one.name, one.getAttribute("aria-label")].join(" ");
    });
    if (text.includes(name)) return;
  }
  throw new Error(`no control ${name} by Tab on ${page.url()}`);
}

test("every page is clean in both schemes and on a narrow screen", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open(chrome, { colorScheme, tolerant: true });
    for (const path of await pages()) {
      await page.goto(site.url + path);
      assert.deepEqual(await violations(page), [], `${colorScheme} ${path}`);
      await page.setViewportSize({ width: 320, height: 700 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= 320, `${path} is ${wide} px wide`);
      await page.setViewportSize({ width: 1280, height: 900 });
    }
    assert.deepEqual(page.faults, []);
    await page.context().close();
  }
});

test("no page writes an error or asks another host", async () => {
  const page = await open(chrome);
  for (const path of await pages()) {
    if (path === "/nothing") continue;
    await page.goto(site.url + path, { waitUntil: "load" });
  }
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("hostile text is text in every field", async () => {
  const page = await open(chrome);
  const letters = run(redis, ["dead", "list", "hostile", "victim", "--json"]).trim().split("\n");
  const paths = letters.map((line) => `/dead/hostile/victim/${JSON.parse(line).id}`);
  for (const path of ["/dead", "/dead/hostile/victim", "/topics/hostile", ...paths]) {
    await page.goto(site.url + path);
    assert.equal(await page.locator("img").count(), 0, path);
    assert.equal(await page.locator("script:not([src])").count(), 0, path);
    const text = await page.locator("body").innerText();
    assert.ok(!/[\u202e\u200b]/u.test(text), path);
    // A list of causes folds quoted text.
    if (paths.includes(path)) assert.ok(text.includes(HOSTILE.slice(0, 20)), path);
  }
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("one dead letter is redriven by the keyboard alone", async () => {
  const before = group(redis, "orders", "billing").dead;
  const page = await open(chrome);
  await page.goto(`${site.url}/`);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main", "the skip link leads to the content");
  await page.goto(`${site.url}/dead`);
  await tabTo(page, "card declined");
  await Promise.all([page.waitForURL(/fingerprint=/), page.keyboard.press("Enter")]);
  await tabTo(page, "Select 1");
  await page.keyboard.press("Space");
  await tabTo(page, "Redrive selected");
  await Promise.all([page.waitForURL(/sweep/), page.keyboard.press("Enter")]);
  await tabTo(page, "Redrive 1 dead letter");
  await Promise.all([page.waitForURL(/operations/), page.keyboard.press("Enter")]);
  await page.getByText("done; 1 taken").waitFor();
  assert.equal(group(redis, "orders", "billing").dead, before - 1);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("without JavaScript one dead letter is found, edited and another one purged", async () => {
  const page = await open(chrome, { javaScriptEnabled: false });
  await page.goto(`${site.url}/dead/orders/billing`);
  const before = group(redis, "orders", "billing").dead;
  await page.getByText("Filter", { exact: true }).first().click();
  await page.getByLabel("Error contains").fill("declined");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.getByRole("table").getByRole("link").first().click();
  await page.getByRole("link", { name: "Edit…" }).click();
  const text = page.getByLabel("To send");
  await text.fill((await text.inputValue()).replace("1250", "999"));
  await page.getByRole("button", { name: "Send the edited message" }).click();
  await page.getByText("The message is edited").waitFor();
  await page.getByRole("checkbox").first().check();
  await page.getByRole("button", { name: "Purge selected…" }).click();
  await page.getByLabel("to confirm").fill("2");
  await page.getByRole("button", { name: "Purge 1 dead letter" }).click();
  await page.getByText("nothing was changed").waitFor();
  await page.getByLabel("to confirm").fill("1");
  await page.getByRole("button", { name: "Purge 1 dead letter" }).click();
  await page.waitForURL(/operations/);
  await until("the purge", () => group(redis, "orders", "billing").dead === before - 2);
  await page.context().close();
});

test("figures change by themselves, keep the focus, and pause", async () => {
  const page = await open(chrome);
  await page.goto(`${site.url}/`);
  const row = page.getByRole("row").filter({ hasText: "of orders" });
  const lag = () => row.locator("td").first().innerText();
  const first = Number.parseInt(await lag(), 10);
  await row.getByRole("link", { name: "billing" }).focus();
  run(redis, ["publish", "orders", "--type", "order.placed"], "{}");
  await until("the lag to grow", async () => Number.parseInt(await lag(), 10) === first + 1);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "billing");
  await page.getByRole("button", { name: "Pause" }).click();
  const paused = await lag();
  run(redis, ["publish", "orders", "--type", "order.placed"], "{}");
  await page.waitForTimeout(2500);
  assert.equal(await lag(), paused, "a paused page stands still");
  await page.getByRole("button", { name: "Paused" }).click();
  await until("the lag to follow", async () => Number.parseInt(await lag(), 10) === first + 2);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("an update waits while text is selected or the mouse is down", async () => {
  const page = await open(chrome);
  // Keeps the newest figures that the page was sent.
  await page.addInitScript(() => {
    const Native = EventSource;
    window.EventSource = class extends Native {
      constructor(...of) {
        super(...of);
        this.addEventListener("region", (event) => { window.sent = event.data; });
      }
    };
  });
  await page.goto(`${site.url}/`);
  const row = page.getByRole("row").filter({ hasText: "of orders" });
  const lag = async () => Number.parseInt(await row.locator("td").first().innerText(), 10);
  const sent = () => page.evaluate(() => {
    const rows = [...new DOMParser().parseFromString(window.sent ?? "", "text/html").querySelectorAll("tr")];
    return Number.parseInt(rows.find((one) => one.textContent.includes("of orders"))?.querySelector("td").textContent, 10);
  });
  // An update may replace the row before its text is selected; afterwards none does.
  await until("text to be selected", () => row.locator("th").evaluate((cell) => {
    getSelection().selectAllChildren(cell);
    return cell.isConnected;
  }));
  const first = await lag();
  const selected = await page.evaluate(() => getSelection().toString());
  run(redis, ["publish", "orders", "--type", "order.placed"], "{}");
  await until("the page to be sent the lag", async () => (await sent()) === first + 1);
  assert.equal(await lag(), first, "the page waits");
  assert.equal(await page.evaluate(() => getSelection().toString()), selected);
  // Nothing more is sent: the update that waited comes with the end of the selection.
  await page.evaluate(() => getSelection().removeAllRanges());
  await until("the lag to follow", async () => (await lag()) === first + 1);
  // A click needs its element from the press to the release.
  await row.locator("td").first().hover();
  await page.mouse.down();
  run(redis, ["publish", "orders", "--type", "order.placed"], "{}");
  await until("the page to be sent the lag", async () => (await sent()) === first + 2);
  assert.equal(await lag(), first + 1, "the page waits");
  await page.mouse.up();
  await until("the lag to follow", async () => (await lag()) === first + 2);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("the scheme is chosen and kept", async () => {
  const page = await open(chrome, { colorScheme: "light" });
  await page.goto(`${site.url}/`);
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await colour();
  const button = page.getByRole("button", { name: /^Theme/ });
  await button.click();
  await button.click();
  assert.equal(await button.innerText(), "Theme: dark");
  const dark = await colour();
  assert.notEqual(dark, light);
  await page.goto(`${site.url}/dead`);
  assert.equal(await colour(), dark);
  await page.context().close();
});

test("the console works under a path behind a proxy", async () => {
  const own = await Console.start(redis, ["--base-path", "/ops/redstart"]);
  const between = await proxy(own.port, "/ops/redstart");
  const page = await open(chrome);
  for (const path of await pages("/ops/redstart")) {
    if (path.endsWith("/nothing")) continue;
    const answer = await page.goto(between.url + path);
    assert.equal(answer.status(), 200, path);
  }
  await page.goto(`${between.url}/ops/redstart/`);
  const row = page.getByRole("row").filter({ hasText: "of orders" });
  const lag = async () => Number.parseInt(await row.locator("td").first().innerText(), 10);
  const first = await lag();
  run(redis, ["publish", "orders", "--type", "order.placed"], "{}");
  await until("the live figures through the proxy", async () => (await lag()) === first + 1);
  const before = group(redis, "orders", "billing").dead;
  await page.goto(`${between.url}/ops/redstart/dead/orders/billing`);
  await page.getByRole("checkbox", { name: /^Select 1/ }).first().check();
  await page.getByRole("button", { name: "Redrive selected…" }).click();
  await page.getByRole("button", { name: "Redrive 1 dead letter" }).click();
  await page.getByText("done; 1 taken").waitFor();
  assert.equal(group(redis, "orders", "billing").dead, before - 1);
  assert.deepEqual(page.faults, []);
  await page.context().close();
  between.close();
  await own.kill();
});

test("a log-in and a viewer's page without actions", async () => {
  const hash = run(redis, ["console", "hash-password"], "secret\n").trim();
  const { writeFileSync } = await import("node:fs");
  const file = join(redis.folder, "users");
  writeFileSync(file, `ann:operator:${hash}\nbob:viewer:${hash}\n`);
  const own = await Console.start(redis, ["--users-file", file]);
  const page = await open(chrome, { httpCredentials: { username: "bob", password: "secret" }, tolerant: true });
  await page.goto(`${own.url}/dead/orders/billing`);
  await page.getByText("bob · viewer").waitFor();
  assert.equal(await page.getByRole("button", { name: /Redrive/ }).count(), 0);
  const wrong = await open(chrome, { httpCredentials: { username: "bob", password: "guess" }, tolerant: true });
  const answer = await wrong.goto(`${own.url}/`);
  assert.equal(answer.status(), 401);
  await page.context().close();
  await wrong.context().close();
  await own.kill();
});

test("Redis stops and starts again under an open page", async () => {
  const page = await open(chrome);
  await page.goto(`${site.url}/`);
  const rows = await page.getByRole("row").count();
  await redis.stop();
  await page.getByText(/no connection for/).first().waitFor();
  assert.equal(await page.getByRole("row").count(), rows, "the table keeps its rows");
  const other = await open(chrome, { tolerant: true });
  const answer = await other.goto(`${site.url}/dead/orders/billing`, { timeout: PATIENCE });
  assert.equal(answer.status(), 503);
  await other.getByText("No connection").first().waitFor();
  await redis.startAgain();
  await page.getByText(/no connection for/).first().waitFor({ state: "detached" });
  assert.equal(await page.getByRole("row").count(), rows);
  assert.deepEqual(page.faults, []);
  await other.context().close();
  await page.context().close();
});

let isAfterIncident = false;

/** Makes the group's 60,000 dead letters once. */
function afterIncident() {
  if (isAfterIncident) return;
  run(redis, ["dead", "purge", "orders", "billing", "--all", "--yes"]);
  run(redis, ["dead", "purge", "hostile", "victim", "--all", "--yes"]);
  incident(redis);
  isAfterIncident = true;
}

test("a search that a page has cut goes on live, with and without JavaScript", async () => {
  afterIncident();
  // Each page and each event searches one portion of 20,000.
  const own = await Console.start(redis, ["--search-time", "0ms"]);
  // One of the oldest: the third portion has it.
  const address = `${own.url}/dead/orders/billing?error=after+7+ms`;
  const found = "gateway timeout after 7 ms";
  const plain = await open(chrome, { javaScriptEnabled: false });
  await plain.goto(address);
  for (let step = 0; step < 2; step += 1) {
    await plain.getByText("This page searched 20,000 of 60,000 dead letters").waitFor();
    assert.equal(await plain.getByText(found).count(), 0);
    await plain.getByRole("link", { name: "Search on" }).click();
  }
  await plain.getByText(found).first().waitFor();
  await plain.context().close();

  const page = await open(chrome);
  await page.goto(address);
  await page.getByText(found).first().waitFor();
  await page.getByText("The search has ended").waitFor();
  assert.equal(await page.getByRole("link", { name: "Search on" }).count(), 0);
  assert.equal(await page.locator("progress").count(), 0);
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(page.faults, []);
  await page.context().close();

  // The console is away: what the page has stays, and its link leads on.
  const cut = await open(chrome, { tolerant: true });
  await cut.route("**/search?*", (route) => route.abort());
  await cut.goto(address);
  await cut.getByText("The search has stopped; its link continues it").waitFor();
  await cut.getByRole("link", { name: "Search on" }).click();
  await cut.waitForURL(/before=/);
  await cut.context().close();
  await own.kill();
});

test("exactly the right 48,211 of 60,000 are brought back, watched, stopped, cut off and resumed", async () => {
  afterIncident();
  const dead = () => group(redis, "orders", "billing").dead;
  assert.equal(dead(), 60_000);
  const ann = await open(chrome, { tolerant: true });
  await ann.goto(`${site.url}/`);
  await ann.getByRole("link", { name: "60,000" }).waitFor();
  await picture(ann, "overview");
  await ann.goto(`${site.url}/dead`);
  await picture(ann, "causes");
  await ann.getByRole("link", { name: "gateway timeout" }).click();
  await picture(ann, "list");
  await ann.getByRole("button", { name: "Redrive all that match…" }).click();
  await ann.getByText("48,211 dead letters").first().waitFor();
  await ann.getByLabel("At most a second").fill("6,000");
  await ann.getByLabel("to confirm").fill("48,211");
  await picture(ann, "redrive");
  await ann.getByRole("button", { name: "Redrive 48,211 dead letters" }).click();
  await ann.waitForURL(/operations/);
  // Another browser sees the same progress.
  const bob = await open(chrome, { tolerant: true });
  await bob.goto(ann.url());
  const taken = async (page) => {
    const bar = page.locator("[data-live] progress");
    return await bar.count() ? Number(await bar.getAttribute("value")) : 0;
  };
  await until("both to see the progress", async () => await taken(ann) > 1000 && await taken(bob) > 1000);
  await picture(ann, "progress");
  await ann.getByRole("button", { name: "Stop" }).click();
  await bob.getByRole("button", { name: "Resume" }).waitFor();
  const left = dead();
  assert.ok(left > 11_789 && left < 60_000, `${left} left`);
  await bob.getByRole("button", { name: "Resume" }).click();
  await until("the operation to go on", () => dead() < left);
  // The console dies in the middle of it.
  await site.kill();
  await ann.getByText("No connection to the console").waitFor();
  const cut = dead();
  assert.ok(cut > 11_789, `${cut} left when the console died`);
  site = await Console.start(redis, PATIENT, site.port);
  await ann.getByRole("button", { name: "Resume" }).waitFor();
  await ann.getByRole("button", { name: "Resume" }).click();
  await until("the operation to end", () => dead() === 11_789);
  await ann.getByText(/^done/).first().waitFor();
  await ann.getByText("48,211", { exact: true }).waitFor();
  const rest = run(redis, ["dead", "summary", "orders", "billing", "--json"]);
  assert.deepEqual(JSON.parse(rest).map((one) => [one.fingerprint, one.count]), [["card declined", 11_789]]);
  const [entry] = run(redis, ["dead", "journal", "orders", "billing", "--json"]).trim().split("\n").map((line) => JSON.parse(line)).filter((one) => one.action === "redrive" && one.taken === 48_211);
  assert.equal(entry.operator, "ann");
  await ann.context().close();
  await bob.context().close();
});

/** Keeps a picture, where a folder is given. */
async function picture(page, name) {
  if (process.env.PICTURES) await page.screenshot({ path: join(process.env.PICTURES, `${name}.png`) });
}
