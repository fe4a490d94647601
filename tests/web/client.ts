// The service as pages call it: the stubs of the contract, on gRPC-Web.

import { createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { SyncService } from "./generated/syncline/v1/sync_service_pb";

export type Sync = Client<typeof SyncService>;

/** A client with this token, or without any. */
export function connect(address: string, token?: string): Sync {
  const bearer: Interceptor = (next) => (request) => {
    if (token !== undefined) {
      request.header.set("authorization", `Bearer ${token}`);
    }
    return next(request);
  };
  return createClient(SyncService, createGrpcWebTransport({ baseUrl: address, interceptors: [bearer] }));
}

/** Writes a record of its own; the id also names the mutation. */
export async function put(sync: Sync, id: string, n: number) {
  const document = { form: { case: "fields", value: { n } } } as const;
  const operation = { case: "put", value: { document } } as const;
  const mutation = { id, key: { collection: "task", id }, operation };
  return (await sync.mutate({ mutation })).result!;
}

/** Writes records `name-0`, `name-1` and so on, several at a time. */
export async function putMany(sync: Sync, name: string, count: number) {
  let next = 0;
  const one = async () => {
    while (next < count) {
      const n = next++;
      await put(sync, `${name}-${n}`, n);
    }
  };
  await Promise.all([one(), one(), one()]);
}
