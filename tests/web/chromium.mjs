// Finds a Chromium that runs here: an installed one, or the one that comes as the package
// @sparticuz/chromium, if that is there. By itself it only says whether there is one.

import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const INSTALLED = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** The program and its version, or nothing. The environment of this process is then the one it needs. */
export async function findChromium() {
  const installed = INSTALLED.map(asked).find((found) => found !== undefined);
  return installed ?? asked(await unpacked());
}

/** Some distributions install a script of that name that only says what to install. */
function asked(program) {
  if (program === undefined) {
    return undefined;
  }
  const { status, stdout } = spawnSync(program, ["--version", "--no-sandbox"]);
  return status === 0 ? { program, version: String(stdout).trim() } : undefined;
}

async function unpacked() {
  const folder = join(here, "chromium");
  mkdirSync(folder, { recursive: true });
  // The package unpacks into the temporary folder, and its libraries only for systems it knows.
  Object.assign(process.env, { TMPDIR: folder, AWS_LAMBDA_JS_RUNTIME: "nodejs20.x" });
  try {
    const { default: packed } = await import("@sparticuz/chromium");
    packed.setGraphicsMode = false;
    return await packed.executablePath();
  } catch (error) {
    if (error.code === "ERR_MODULE_NOT_FOUND") {
      return undefined;
    }
    throw error;
  }
}

if (process.argv[1] === import.meta.filename) {
  const found = await findChromium();
  console.log(found ? `${found.program}: ${found.version}` : "there is no Chromium that runs here");
  process.exitCode = found ? 0 : 1;
}
