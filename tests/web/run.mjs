// Opens page.ts in a headless Chromium, beside a server that runs.
//
//     node run.mjs path/to/proto
//
// Works in its own folder, so .ci/run copies that first, and installs what package.json names. The
// server's address and token come from SYNCLINE_TEST_ADDRESS and SYNCLINE_TEST_TOKEN; it has to allow
// pages of http://app.test:8000. That name, and the one of a page that is not allowed, lead Chromium
// to a server in here.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { openSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { delimiter, join, resolve } from "node:path";
import { build } from "esbuild";
import { findChromium } from "./chromium.mjs";

const here = import.meta.dirname;
const PAGE = "app.test:8000";
const STRANGER = "stranger.test:8000";
const PATIENCE_MS = 120_000;

const { SYNCLINE_TEST_ADDRESS, SYNCLINE_TEST_TOKEN: token } = process.env;
const address = `http://${SYNCLINE_TEST_ADDRESS}`;

function generate(protos) {
  const bin = join(here, "node_modules", ".bin");
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` };
  for (const folder of protos) {
    const template = join(here, "buf.gen.yaml");
    const words = ["generate", folder, "--template", template, "--output", here];
    const { status } = spawnSync(join(bin, "buf"), words, { env, stdio: "inherit" });
    if (status !== 0) {
      throw new Error(`buf cannot generate stubs from ${folder}`);
    }
  }
}

async function bundle(entry, outfile, platform) {
  const options = { bundle: true, format: "esm", target: "es2023", logLevel: "warning" };
  await build({ ...options, entryPoints: [join(here, entry)], outfile: join(here, outfile), platform });
  return join(here, outfile);
}

/** Serves the page and does what it asks for; gives the port, and the page's last word. */
async function serve(script, write) {
  let end;
  const ended = new Promise((settle) => (end = settle));
  const module = `<script type="module" src="/page.js"></script>`;
  const page = `<!doctype html><title>Syncline</title><body>${module}`;
  const answer = async (request, body) => {
    const url = new URL(request.url, "http://localhost");
    switch (`${request.method} ${url.pathname}`) {
      case "GET /":
        return [200, "text/html", page];
      case "GET /page.js":
        return [200, "text/javascript", script];
      case "GET /given":
        return [200, "application/json", JSON.stringify({ address, token, stranger: STRANGER })];
      case "POST /write":
        await write(url.searchParams.get("name"), Number(url.searchParams.get("count")));
        return [200, "text/plain", ""];
      case "POST /ok":
        console.log(`ok  ${body}`);
        return [200, "text/plain", ""];
      case "POST /end":
        end(body);
        return [200, "text/plain", ""];
      default:
        return [404, "text/plain", ""];
    }
  };
  const server = createServer(async (request, response) => {
    try {
      const body = String(Buffer.concat(await request.toArray()));
      const [status, type, text] = await answer(request, body);
      response.writeHead(status, { "content-type": type }).end(text);
    } catch (error) {
      response.writeHead(500).end();
      end(`${request.method} ${request.url}\n${error.stack}`);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: server.address().port, ended };
}

function open(program, port, log) {
  const names = [PAGE, STRANGER].map((host) => `MAP ${host.split(":")[0]} 127.0.0.1:${port}`);
  const flags = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    `--user-data-dir=${join(here, "profile")}`,
    `--host-resolver-rules=${names.join(", ")}`,
  ];
  const output = openSync(log, "w");
  const stdio = ["ignore", output, output];
  return spawn(program, [...flags, `http://${PAGE}/`], { stdio });
}

async function main() {
  generate([resolve(process.argv[2]), join(here, "proto")]);
  const script = readFileSync(await bundle("page.ts", "page.js", "browser"));
  const { connect, putMany } = await import(await bundle("client.ts", "client.mjs", "node"));
  const others = connect(address, token);
  const chromium = await findChromium();
  if (chromium === undefined) {
    throw new Error("there is no Chromium that runs here");
  }
  console.log(chromium.version);
  const { server, port, ended } = await serve(script, (...what) => putMany(others, ...what));
  const log = join(here, "chromium.log");
  const browser = open(chromium.program, port, log);
  const gone = once(browser, "exit");
  const late = new AbortController();
  const words = await Promise.race([
    ended,
    gone.then(([code, signal]) => `Chromium ended by itself: ${code ?? signal}`),
    new Promise((settle) => {
      const timer = setTimeout(settle, PATIENCE_MS, "the page does not come to its end");
      late.signal.addEventListener("abort", () => clearTimeout(timer));
    }),
  ]);
  late.abort();
  browser.kill();
  await gone;
  server.closeAllConnections();
  server.close();
  if (words !== "") {
    const said = readFileSync(log, "utf8").split("\n");
    console.error(said.filter((line) => line.includes("CONSOLE")).join("\n"));
    throw new Error(words);
  }
}

await main();
