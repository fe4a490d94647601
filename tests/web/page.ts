// What runs in the browser: a page of another origin than the service. It says what it has seen to
// the server that it came from, and throws at the first thing that is not as it should be.

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "./generated/google/rpc/error_info_pb";
import { MutationOutcome } from "./generated/syncline/v1/mutation_pb";
import { connect, put, putMany, type Sync } from "./client";

interface Given {
  address: string;
  token: string;
  stranger: string;
}

const { address, token, stranger }: Given = await (await fetch("/given")).json();

/** Written before anybody watches, meanwhile by others, and meanwhile by this page. */
const BEFORE = 100;
const OTHERS = 200;
const OWN = 20;
/** The page ends its first watch with so many changes. */
const ENOUGH = BEFORE + 80;

interface Cursor {
  epoch: string;
  revision: bigint;
}

interface Seen {
  ids: string[];
  cursor: Cursor;
  live: number;
}

function equal<T>(actual: T, expected: T, what: string) {
  if (actual !== expected) {
    throw new Error(`${what}: ${String(actual)}, not ${String(expected)}`);
  }
}

async function tell(path: string, body = "") {
  const answer = await fetch(path, { method: "POST", body });
  equal(answer.status, 200, path);
}

/** How a call fails: its code, and the reason for programs; nothing if it does not. */
async function failure(call: Promise<unknown>): Promise<string> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => ConnectError.from(reason),
  );
  const info = error?.findDetails(ErrorInfoSchema)[0];
  const metadata = Object.entries(info?.metadata ?? {}).map(([key, value]) => `${key}=${value}`);
  const words = [error && Code[error.code], info?.domain, info?.reason, ...metadata];
  return words.filter((word) => word !== undefined).join(" ");
}

async function errorsHaveReasons() {
  const unauthenticated = "Unauthenticated syncline.v1 UNAUTHENTICATED";
  equal(await failure(connect(address).getStatus({})), `${unauthenticated} class=missing`, "none");
  const wrong = connect(address, "x.y.z");
  equal(await failure(wrong.getStatus({})), `${unauthenticated} class=invalid`, "a wrong one");
  // A stream has its status in the answer's headers as well, before there is any message.
  const watched = wrong.watch({})[Symbol.asyncIterator]().next();
  equal(await failure(watched), `${unauthenticated} class=invalid`, "of a stream");
  // Also while the page is still sending.
  const large = { form: { case: "fields", value: { text: "x".repeat(8_000_000) } } } as const;
  const patch = { case: "patch", value: { set: large } } as const;
  const write = { mutation: { id: "large", key: { collection: "task", id: "1" }, operation: patch } };
  equal(await failure(wrong.mutate(write)), `${unauthenticated} class=invalid`, "a large one");
  const sync = connect(address, token);
  const tooLarge = "ResourceExhausted syncline.v1 REQUEST_TOO_LARGE";
  equal(await failure(sync.mutate(write)), tooLarge, "too large");
  const nameless = "InvalidArgument syncline.v1 VALIDATION_ERROR";
  equal(await failure(put(sync, "", 1)), nameless, "a broken rule");
}

async function writesAreDecidedOnce() {
  const sync = connect(address, token);
  for (const replayed of [false, true]) {
    const result = await put(sync, "first", 0);
    equal(result.outcome, MutationOutcome.APPLIED, "outcome");
    equal(result.revision, 1n, "revision");
    equal(result.replayed, replayed, "replayed");
  }
  await sync.mutate({
    mutation: {
      id: "gone",
      key: { collection: "task", id: "first" },
      operation: { case: "delete", value: {} },
    },
  });
}

/** Watches until there is enough, then aborts. */
async function watch(sync: Sync, seen: Seen, enough: () => boolean, onCaughtUp: () => void) {
  const stop = new AbortController();
  let caughtUp = 0;
  const cursor = seen.cursor.revision === 0n ? undefined : seen.cursor;
  const answers = sync.watch({ subscription: { cursor } }, { signal: stop.signal });
  try {
    for await (const { frame } of answers) {
      switch (frame.case) {
        case "subscribed":
          seen.cursor.epoch ||= frame.value.epoch;
          equal(frame.value.epoch, seen.cursor.epoch, "epoch");
          equal(frame.value.space, "users/dev", "space");
          break;
        case "changes": {
          equal(frame.value.after, seen.cursor.revision, "the range's beginning");
          let last = frame.value.after;
          for (const change of frame.value.changes) {
            equal(change.revision > last, true, `order of ${change.revision}`);
            last = change.revision;
            seen.ids.push(change.key!.id);
            seen.live += caughtUp;
          }
          equal(last <= frame.value.upTo, true, "the range's end");
          seen.cursor.revision = frame.value.upTo;
          break;
        }
        case "caughtUp":
          caughtUp += 1;
          equal(frame.value.upTo, seen.cursor.revision, "caught up");
          onCaughtUp();
          break;
        case "progress":
          break;
        default:
          throw new Error(`nobody asked for ${frame.case}`);
      }
      if (caughtUp > 0 && enough()) {
        stop.abort();
      }
    }
  } catch (error) {
    equal(Code[ConnectError.from(error).code], "Canceled", String(error));
    equal(caughtUp, 1, "times caught up");
    return;
  }
  throw new Error("the stream ended by itself");
}

async function aWatchMissesNothing() {
  const sync = connect(address, token);
  await tell(`/write?name=before&count=${BEFORE}`);
  const seen: Seen = { ids: [], cursor: { epoch: "", revision: 0n }, live: 0 };
  let writing: Promise<unknown> = Promise.resolve();
  await watch(sync, seen, () => seen.ids.length >= ENOUGH, () => {
    writing = Promise.all([tell(`/write?name=others&count=${OTHERS}`), putMany(sync, "own", OWN)]);
  });
  equal(seen.live > 0, true, "something came live");
  equal(seen.ids.length < 1 + BEFORE + OTHERS + OWN, true, "the rest is missing yet");

  // Goes on where the first one was, with whatever was written since.
  const all = 1 + BEFORE + OTHERS + OWN;
  await watch(sync, seen, () => seen.ids.length >= all, () => {});
  await writing;
  const names = (name: string, count: number) => [...Array(count).keys()].map((n) => `${name}-${n}`);
  const written = [...names("before", BEFORE), ...names("others", OTHERS), ...names("own", OWN)];
  const expected = ["first", ...written];
  equal(seen.ids.toSorted().join(), expected.toSorted().join(), "the records, each once");
  const status = await sync.getStatus({});
  equal(seen.cursor.revision, status.head, "the cursor at the end");
}

/** The same call from a page of an origin that is not listed. */
async function othersCannotRead() {
  equal(await failure(connect(address, token).getStatus({})), "", "this page can");
  const frame = document.createElement("iframe");
  frame.src = `http://${stranger}/`;
  const answer = new Promise<string>((resolve) => {
    addEventListener("message", ({ data }) => resolve(String(data)));
  });
  document.body.append(frame);
  equal(await answer, "Unknown", "what the other page learns");
}

async function main() {
  if (location.host === stranger) {
    parent.postMessage(await failure(connect(address, token).getStatus({})), "*");
    return;
  }
  for (const [what, run] of Object.entries({
    "errors have reasons": errorsHaveReasons,
    "writes are decided once": writesAreDecidedOnce,
    "a watch misses nothing": aWatchMissesNothing,
    "pages of other origins cannot read": othersCannotRead,
  })) {
    const wrong = await run().then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? (error.stack ?? error.message) : String(error)),
    );
    if (wrong !== undefined) {
      await tell("/end", `${what}\n${wrong}`);
      return;
    }
    await tell("/ok", what);
  }
  await tell("/end");
}

void main();
