// Starts what the browser suite needs: a Redis server, data, consoles, a proxy, a browser.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

/** How long anything may take. Long, because the machine may be busy. */
export const PATIENCE = 60_000;

const tool = process.env.REDSTART_TOOL
  ?? fileURLToPath(new URL("../../target/debug/redstart", import.meta.url));

/** Waits until `look` returns something true. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function freePort() {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A private Redis server that keeps its data over a restart. */
export class Redis {
  static async start() {
    const redis = new Redis();
    redis.folder = mkdtempSync(join(tmpdir(), "redstart-browser-"));
    redis.port = await freePort();
    await redis.startAgain();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}/`;
  }

  async startAgain() {
    const settings = ["--port", String(this.port), "--bind", "127.0.0.1", "--save", "",
      "--appendonly", "yes", "--dir", this.folder];
    this.process = spawn("redis-server", settings, { stdio: "ignore" });
    await until("the server to answer", () => new Promise((done) => {
      const socket = net.connect(this.port, "127.0.0.1", () => socket.write("PING\r\n"));
      socket.on("data", (data) => { socket.destroy(); done(String(data).startsWith("+PONG")); });
      socket.on("error", () => done(false));
    }));
  }

  async stop() {
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }

  async remove() {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function environment(redis) {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("REDSTART_"));
  return {
    ...Object.fromEntries(kept),
    REDSTART_REDIS_URL: redis.url,
    REDSTART_NAMESPACE: "shop",
    REDSTART_CODEC: "json",
    REDSTART_DEAD_LETTER_EDITING: "true",
    // Failed messages wait in the store, where the pages show them.
    REDSTART_SUB_HOLD_BACK: "0s",
    USER: "ann",
  };
}

/** Runs the tool to its end and returns its output. */
export function run(redis, args, input = "") {
  const ran = spawnSync(tool, args, { env: environment(redis), input, encoding: "utf8", maxBuffer: 1 << 28 });
  if (ran.status !== 0) throw new Error(`${args.join(" ")}: ${ran.stderr}`);
  return ran.stdout;
}

/** Handles the messages of a topic with a command, until the group has nothing left to do. */
export async function work(redis, topic, group, command, more = []) {
  const args = ["work", topic, group, "--exec", command, ...more];
  const worker = spawn(tool, args, { env: environment(redis), stdio: "ignore" });
  const left = () => {
    const groups = JSON.parse(run(redis, ["groups", "--json"]));
    const one = groups.find((one) => one.topic === topic && one.group === group);
    return one && one.lag + one.inFlight === 0;
  };
  await until(`${topic}/${group} to be done`, left);
  worker.kill("SIGTERM");
  await once(worker, "exit");
}

/** The status of a group. */
export function group(redis, topic, name) {
  const groups = JSON.parse(run(redis, ["groups", "--json"]));
  return groups.find((one) => one.topic === topic && one.group === name);
}

/** A console of the tool. */
export class Console {
  static async start(redis, args = [], port = 0) {
    const one = new Console();
    const all = ["console", "--listen", `127.0.0.1:${port}`, ...args];
    one.process = spawn(tool, all, { env: environment(redis), stdio: ["ignore", "ignore", "pipe"] });
    one.log = "";
    const lines = createInterface({ input: one.process.stderr });
    one.url = await new Promise((done, failed) => {
      lines.on("line", (line) => {
        one.log += `${line}\n`;
        const found = /^(http:\/\/\S+) \(/.exec(line);
        if (found) done(found[1]);
      });
      one.process.on("exit", () => failed(new Error(`the console ended: ${one.log}`)));
    });
    one.port = Number(new URL(one.url).port);
    return one;
  }

  async kill(signal = "SIGKILL") {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill(signal);
    await once(this.process, "exit");
  }
}

/** A proxy that takes the base path off. */
export async function proxy(port, base) {
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(base)) {
      response.writeHead(404).end();
      return;
    }
    const path = request.url.slice(base.length) || "/";
    const options = { port, host: "127.0.0.1", path, method: request.method, headers: request.headers };
    const onward = http.request(options, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.closeAllConnections() || server.close() };
}

/** Debian's Chromium. A missing browser fails the suite. */
export function browser() {
  const executablePath = process.env.REDSTART_CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
}

/** A page that fails the suite for a console error, a dialog, or a request to another host. */
export async function open(browser, options = {}) {
  const { tolerant = false, ...settings } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings });
  const page = await context.newPage();
  page.faults = [];
  page.setDefaultTimeout(PATIENCE);
  if (!tolerant) {
    page.on("console", (line) => { if (line.type() === "error") page.faults.push(`console: ${line.text()}`); });
  }
  page.on("pageerror", (error) => page.faults.push(`error: ${error}`));
  page.on("dialog", (dialog) => { page.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (hostname !== "127.0.0.1" || protocol !== "http:") page.faults.push(`request: ${request.url()}`);
  });
  return page;
}
