#!/usr/bin/env python3
"""The contract as a client in another language sees it.

Generates stubs from proto/ into a temporary folder and talks to a running
server; its address and token come from the command line, or from
SYNCLINE_TEST_ADDRESS and SYNCLINE_TEST_TOKEN. Any development server will do,
as long as nobody else writes as the same user.
"""

import argparse
import hashlib
import json
import os
import queue
import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
TIMEOUT_S = 30
DOMAIN = "syncline.v1"


def generate(folder):
    """Makes the stubs and imports them."""
    files = sorted(str(file.relative_to(PROTO)) for file in PROTO.rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    command = ["protoc", f"-I{PROTO}", f"-I{well_known}"]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(command + files) == 0, "protoc refuses the contract"
    sys.path.insert(0, folder)
    names = ["digest", "document", "exchange", "limits", "mutation", "queue", "record"]
    names += ["replace", "snapshot", "subscribe", "sync_service", "space_service"]
    names += ["queue_service", "space", "audit", "export"]
    module = __import__("syncline.v1", fromlist=["v1"])
    api = type(sys)("api")
    for name in names:
        loaded = __import__(f"{module.__name__}.{name}_pb2", fromlist=["*"])
        vars(api).update({key: value for key, value in vars(loaded).items() if key[0] != "_"})
    service = __import__("syncline.v1.sync_service_pb2_grpc", fromlist=["*"])
    api.Stub = service.SyncServiceStub
    service = __import__("syncline.v1.space_service_pb2_grpc", fromlist=["*"])
    api.SpaceStub = service.SpaceServiceStub
    service = __import__("syncline.v1.queue_service_pb2_grpc", fromlist=["*"])
    api.QueueStub = service.QueueServiceStub
    return api


class Calls:
    """The stubs, with the token on each call."""

    def __init__(self, api, channel, token):
        self.api = api
        self.stub = api.Stub(channel)
        self.stubs = [self.stub, api.SpaceStub(channel), api.QueueStub(channel)]
        self.metadata = [("authorization", f"Bearer {token}")]

    def __getattr__(self, name):
        method = next(getattr(stub, name) for stub in self.stubs if hasattr(stub, name))
        return lambda request: method(request, metadata=self.metadata, timeout=TIMEOUT_S)

    def put(self, collection, id, fields, **mutation):
        document = self.api.Document()
        # An empty object is a document too; an untouched field would be absent.
        document.fields.SetInParent()
        document.fields.update(fields)
        return self.api.Mutation(
            id=mutation.pop("mutation_id", str(uuid.uuid4())),
            key=self.api.RecordKey(collection=collection, id=id),
            put=self.api.PutOperation(document=document),
            **mutation,
        )

    def mutate(self, mutation):
        return self.Mutate(self.api.MutateRequest(mutation=mutation)).result

    def head(self):
        return self.GetStatus(self.api.GetStatusRequest())


class Stream:
    """An open Subscribe stream: frames go out through a queue."""

    END = object()

    def __init__(self, calls):
        self.out = queue.Queue()
        requests = iter(self.out.get, self.END)
        self.call = calls.Subscribe(requests)
        self.frames = iter(self.call)

    def send(self, frame: Message):
        self.out.put(frame)

    def next(self):
        """The next frame that is not a sign of life, with its kind."""
        for response in self.frames:
            kind = response.WhichOneof("frame")
            if kind != "progress":
                return kind, getattr(response, kind)
        raise AssertionError("the stream ended")

    def close(self):
        self.out.put(self.END)
        self.call.cancel()


def fails(call, code, reason):
    """Checks that the call fails as the contract says; its details, by type."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        status = rpc_status.from_call(error)
        assert status is not None, "an error without details"
        details = {}
        for detail in status.details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
                if detail.Is(kind.DESCRIPTOR):
                    details[kind] = kind()
                    detail.Unpack(details[kind])
        info = details[error_details_pb2.ErrorInfo]
        assert (info.domain, info.reason) == (DOMAIN, reason), info
        return details
    raise AssertionError(f"did not fail with {reason}")


def a_record_is_written_read_and_deleted(calls, collection):
    api = calls.api
    fields = {"title": "Grüße", "count": 2.5, "done": False, "tags": ["a", None], "in": {"x": 1}}
    mutation = calls.put(collection, "1", fields)
    first = calls.mutate(mutation)
    assert first.outcome == api.MUTATION_OUTCOME_APPLIED and first.revision > 0, first
    again = calls.mutate(mutation)
    assert again.replayed and again.revision == first.revision, again

    key = api.RecordKey(collection=collection, id="1")
    record = calls.GetRecord(api.GetRecordRequest(key=key)).record
    assert json_format.MessageToDict(record.document.fields) == fields, record
    assert record.revision == first.revision and record.author, record
    form = api.DOCUMENT_FORM_JSON
    record = calls.GetRecord(api.GetRecordRequest(key=key, document_form=form)).record
    assert json.loads(record.document.json) == fields, record

    delete = api.Mutation(id=str(uuid.uuid4()), key=key, delete=api.DeleteOperation())
    assert calls.mutate(delete).revision == first.revision + 1
    fails(
        lambda: calls.GetRecord(api.GetRecordRequest(key=key)),
        grpc.StatusCode.NOT_FOUND,
        "RECORD_NOT_FOUND",
    )


def a_patch_changes_parts_and_a_stale_base_is_a_conflict(calls, collection):
    api = calls.api
    first = calls.mutate(calls.put(collection, "p", {"a": 1, "b": {"c": 2, "d": 3}}))
    patch = api.Mutation(
        id=str(uuid.uuid4()),
        key=api.RecordKey(collection=collection, id="p"),
        patch=api.PatchOperation(set=api.Document(json=b'{"b":{"c":9}}'), unset=["/a"]),
        base=first.revision,
    )
    second = calls.mutate(patch)
    assert second.outcome == api.MUTATION_OUTCOME_APPLIED, second
    stale = calls.mutate(calls.put(collection, "p", {}, base=first.revision))
    assert stale.outcome == api.MUTATION_OUTCOME_CONFLICT, stale
    seen = json_format.MessageToDict(stale.record.document.fields)
    assert seen == {"b": {"c": 9, "d": 3}} and stale.revision == second.revision, stale


def a_batch_is_decided_in_order_and_an_atomic_one_whole(calls, collection):
    api = calls.api
    mutations = [calls.put(collection, f"{number:03}", {"n": number}) for number in range(250)]
    results = calls.BatchMutate(api.BatchMutateRequest(mutations=mutations)).results
    revisions = [result.revision for result in results]
    assert revisions == list(range(revisions[0], revisions[0] + 250)), revisions

    head = calls.head().head
    clash = api.Mutation(
        id=str(uuid.uuid4()),
        key=api.RecordKey(collection=collection, id="000"),
        create=api.CreateOperation(document=api.Document(json=b"{}")),
    )
    mutations = [calls.put(collection, "new", {}), clash]
    request = api.BatchMutateRequest(mutations=mutations, atomic=True)
    reasons = [result.rejection.reason for result in calls.BatchMutate(request).results]
    expected = [api.REJECTION_REASON_BATCH_ABORTED, api.REJECTION_REASON_ALREADY_EXISTS]
    assert reasons == expected, reasons
    assert calls.head().head == head, "an aborted batch moved the space"


def pages_hold_everything_once(calls, collection):
    api = calls.api
    before = calls.head()
    mutations = [calls.put(collection, f"{number:03}", {"n": number}) for number in range(120)]
    calls.BatchMutate(api.BatchMutateRequest(mutations=mutations))

    ids, token, pages = [], "", 0
    while True:
        page = calls.ListRecords(
            api.ListRecordsRequest(collection=collection, page_size=50, page_token=token)
        )
        ids += [record.key.id for record in page.records]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert ids == [f"{number:03}" for number in range(120)] and pages == 3, (pages, ids)

    cursor = api.Cursor(epoch=before.epoch, revision=before.head)
    seen, more = [], True
    while more:
        page = calls.ChangesSince(
            api.ChangesSinceRequest(cursor=cursor, collections=[collection], page_size=50)
        )
        seen += [change.revision for change in page.changes]
        cursor, more = page.cursor, page.has_more
    assert seen == sorted(set(seen)) and len(seen) == 120, seen
    assert cursor.revision == calls.head().head


def a_stream_catches_up_and_then_follows(calls, collection):
    api = calls.api
    calls.mutate(calls.put(collection, "early", {"n": 1}))
    stream = Stream(calls)
    subscribe = api.SubscribeFrame(subscription_id="s", collections=[collection])
    stream.send(api.SubscribeRequest(subscribe=subscribe))
    kind, subscribed = stream.next()
    assert kind == "subscribed" and subscribed.subscription_id == "s", subscribed
    cursor, ids, caught_up, late = 0, [], False, None
    while late is None or cursor < late.revision:
        kind, frame = stream.next()
        if kind == "changes":
            assert frame.after == cursor, "a gap"
            ids += [change.key.id for change in frame.changes]
        else:
            assert kind == "caught_up" and not caught_up, (kind, frame)
            caught_up = True
        cursor = frame.up_to
        if caught_up and late is None:
            late = calls.mutate(calls.put(collection, "late", {"n": 2}))
    assert ids == ["early", "late"], ids

    unsubscribe = api.UnsubscribeFrame(subscription_id="s")
    stream.send(api.SubscribeRequest(unsubscribe=unsubscribe))
    kind, closed = stream.next()
    assert (kind, closed.code) == ("closed", 0), closed
    stream.close()


def a_stream_takes_writes_and_acknowledgements(calls, collection):
    api = calls.api
    stream = Stream(calls)
    device = f"{collection}-phone"
    subscribe = api.SubscribeFrame(
        subscription_id="s", start=api.START_SNAPSHOT, device=device, collections=[collection]
    )
    stream.send(api.SubscribeRequest(subscribe=subscribe))
    kinds = []
    while kinds[-1:] != ["caught_up"]:
        kind, frame = stream.next()
        kinds.append(kind)
    assert kinds == ["subscribed", "snapshot", "caught_up"], kinds
    mutations = [calls.put(collection, str(number), {"n": number}) for number in range(3)]
    mutate = api.MutateFrame(request_id="r", device=device, mutations=mutations, atomic=True)
    stream.send(api.SubscribeRequest(mutate=mutate))
    kind, mutated = stream.next()
    assert (kind, mutated.request_id) == ("mutated", "r"), mutated
    revisions = [result.revision for result in mutated.results]
    assert len(revisions) == 3, mutated
    later = calls.mutate(calls.put(collection, "0", {"n": 7}))
    cursor = frame.up_to
    while cursor < later.revision:
        kind, frame = stream.next()
        assert kind == "changes" and [it.key.id for it in frame.changes] == ["0"], frame
        cursor = frame.up_to
    stream.send(api.SubscribeRequest(ack=api.AckFrame(subscription_id="s", revision=cursor)))
    status, deadline = None, time.monotonic() + TIMEOUT_S
    while status is None or status.acknowledged_revision < cursor:
        assert time.monotonic() < deadline, status
        status = calls.GetStatus(api.GetStatusRequest(device=device))
    stream.close()


def watch_follows_from_a_cursor(calls, collection):
    api = calls.api
    first = calls.mutate(calls.put(collection, "1", {"n": 1}))
    cursor = api.Cursor(epoch=calls.head().epoch, revision=first.revision - 1)
    wanted = api.SubscribeFrame(cursor=cursor, collections=[collection])
    seen = []
    for response in calls.Watch(api.WatchRequest(subscription=wanted)):
        kind = response.WhichOneof("frame")
        if kind == "changes":
            seen += [change.key.id for change in response.changes.changes]
        elif kind == "caught_up":
            calls.mutate(calls.put(collection, "2", {"n": 2}))
        if len(seen) == 2:
            break
    assert seen == ["1", "2"], seen


def a_long_poll_answers_with_the_first_change(calls, collection):
    api = calls.api
    head = calls.head()
    cursor = api.Cursor(epoch=head.epoch, revision=head.head)
    request = api.ChangesSinceRequest(cursor=cursor, collections=[collection])
    request.wait.seconds = 10
    waiting = calls.stub.ChangesSince.future(request, metadata=calls.metadata, timeout=TIMEOUT_S)
    calls.mutate(calls.put(collection, "1", {"n": 1}))
    assert [change.key.id for change in waiting.result().changes] == ["1"]


def a_cursor_of_another_history_is_told_to_resync(calls, collection):
    api = calls.api
    stream = Stream(calls)
    cursor = api.Cursor(epoch=str(uuid.uuid4()), revision=1)
    subscribe = api.SubscribeFrame(subscription_id="s", cursor=cursor)
    stream.send(api.SubscribeRequest(subscribe=subscribe))
    kind, frame = stream.next()
    assert (kind, frame.reason) == ("resync_required", api.RESYNC_REASON_EPOCH_CHANGED), frame
    stream.close()
    request = api.ChangesSinceRequest(cursor=cursor)
    fails(
        lambda: calls.ChangesSince(request),
        grpc.StatusCode.FAILED_PRECONDITION,
        "EPOCH_CHANGED",
    )


def a_deleted_record_is_looked_back_at_and_comes_back(calls, collection):
    api = calls.api
    key = api.RecordKey(collection=collection, id="1")
    first = calls.mutate(calls.put(collection, "1", {"n": 1, "m": 1})).revision
    calls.mutate(calls.put(collection, "1", {"n": 2, "m": 1}))
    calls.mutate(api.Mutation(id=str(uuid.uuid4()), key=key, delete=api.DeleteOperation()))
    undelete = api.UndeleteRecordRequest(mutation_id=str(uuid.uuid4()), key=key)
    result = calls.UndeleteRecord(undelete).result
    assert (result.outcome, result.replayed) == (api.MUTATION_OUTCOME_APPLIED, False), result
    again = calls.UndeleteRecord(undelete).result
    assert (again.replayed, again.revision) == (True, result.revision), again

    def fields(revision):
        request = api.GetRecordRequest(key=key, revision=revision)
        return json_format.MessageToDict(calls.GetRecord(request).record.document.fields)

    assert fields(0) == {"n": 2, "m": 1} and fields(first) == {"n": 1, "m": 1}
    request = api.ListRecordHistoryRequest(key=key, page_size=3, without_documents=True)
    steps, pages = [], 0
    while not pages or request.page_token:
        page = calls.ListRecordHistory(request)
        assert not page.truncated, page
        steps += page.steps
        request.page_token, pages = page.next_page_token, pages + 1
    told = [(step.change.action, list(step.changed_paths)) for step in steps]
    created, updated = api.CHANGE_ACTION_CREATED, api.CHANGE_ACTION_UPDATED
    deleted = api.CHANGE_ACTION_DELETED
    assert told == [(created, []), (deleted, []), (updated, ["/n"]), (created, [])], told
    assert pages == 2 and all(step.before_known for step in steps), steps


def a_snapshot_has_the_digest_that_is_told(calls, collection):
    api = calls.api
    own = [calls.put(collection, str(number), {"n": number}) for number in range(5)]
    cursor = calls.Exchange(api.ExchangeRequest(page_size=1)).cursor
    answer = calls.Exchange(api.ExchangeRequest(mutations=own, cursor=cursor))
    assert [it.outcome for it in answer.results] == [api.MUTATION_OUTCOME_APPLIED] * 5
    assert max(it.revision for it in answer.results) <= answer.head
    total = 0
    request = api.SnapshotRequest(collections=[collection])
    for response in calls.Snapshot(request):
        for record in response.records:
            # As the contract says it, with nothing of the service's own.
            parts = [record.key.collection.encode(), record.key.id.encode(), record.checksum]
            total += int.from_bytes(hashlib.sha256(b"\0".join(parts)).digest(), "big")
    assert response.last
    status = calls.GetStatus(api.GetStatusRequest(digest=True, digest_collections=[collection]))
    assert status.digest.records == 5
    assert status.digest.digest == (total % 2**256).to_bytes(32, "big")


def what_is_enqueued_is_applied(calls, collection):
    api = calls.api
    mutation = calls.put(collection, "1", {"n": 1})
    request = api.EnqueueRequest(device="python", mutations=[mutation])
    entries = calls.Enqueue(request).entries
    assert [it.mutation_id for it in entries] == [mutation.id]
    until = time.monotonic() + TIMEOUT_S
    while True:
        listed = calls.ListQueued(api.ListQueuedRequest(device="python")).entries
        entry = next(it for it in listed if it.mutation_id == mutation.id)
        if entry.state != api.QUEUE_STATE_PENDING:
            break
        assert time.monotonic() < until, "the entry still waits"
        time.sleep(0.05)  # between two looks
    assert (entry.state, entry.mutation) == (api.QUEUE_STATE_APPLIED, mutation), entry
    assert calls.ClearSynced(api.ClearSyncedRequest()).cleared >= 1


def a_shared_space_is_made_exported_and_erased(calls, collection):
    api = calls.api
    request = api.CreateSpaceRequest(request_id=collection, title="Shared")
    space = calls.CreateSpace(request).space.space
    assert calls.CreateSpace(request).space.space == space, "the same request, the same space"
    member = api.SetMemberRequest(space=space, user="bob", role=api.ROLE_READER)
    calls.SetMember(member)
    mutation = calls.put(collection, "1", {"text": "ours"})
    calls.Mutate(api.MutateRequest(space=space, mutation=mutation))
    entries = calls.ListAuditEntries(api.ListAuditEntriesRequest(space=space)).entries
    assert [entry.action for entry in entries] == ["member_set", "space_created"], entries
    parts = calls.ExportSpace(api.ExportSpaceRequest(space=space))
    lines = [json.loads(line) for part in parts for line in part.lines.splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "export" and kinds[-1] == "end" and kinds.count("member") == 2, kinds
    record = next(line for line in lines if line["type"] == "record")
    assert record["document"] == {"text": "ours"}, record
    calls.EraseSpace(api.EraseSpaceRequest(space=space, confirm=space))
    request = api.GetSpaceRequest(space=space)
    fails(lambda: calls.GetSpace(request), grpc.StatusCode.NOT_FOUND, "SPACE_NOT_FOUND")


def errors_say_what_and_where(calls, collection):
    api = calls.api
    details = fails(
        lambda: calls.mutate(calls.put("", "1", {})),
        grpc.StatusCode.INVALID_ARGUMENT,
        "VALIDATION_ERROR",
    )
    fields = [it.field for it in details[error_details_pb2.BadRequest].field_violations]
    assert fields == ["mutation.key.collection"], fields

    mutation_id = str(uuid.uuid4())
    calls.mutate(calls.put(collection, "1", {}, mutation_id=mutation_id))
    other = calls.put(collection, "1", {"other": True}, mutation_id=mutation_id)
    fails(
        lambda: calls.mutate(other),
        grpc.StatusCode.FAILED_PRECONDITION,
        "MUTATION_ID_REUSED",
    )
    request = api.GetStatusRequest(space="users/somebody-else")
    fails(lambda: calls.GetStatus(request), grpc.StatusCode.NOT_FOUND, "SPACE_NOT_FOUND")
    fails(
        lambda: calls.stub.GetStatus(api.GetStatusRequest(), timeout=TIMEOUT_S),
        grpc.StatusCode.UNAUTHENTICATED,
        "UNAUTHENTICATED",
    )


def health_and_reflection_answer_without_a_token(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "syncline.v1.SyncService", "syncline.v1.SpaceService"):
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health.Check(request, timeout=TIMEOUT_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)

    # This library speaks v1alpha; the stand-in for grpcurl asks v1.
    database = ProtoReflectionDescriptorDatabase(channel)
    services = list(database.get_services())
    assert "syncline.v1.SyncService" in services, services
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName("syncline.v1.SyncService")
    assert "Subscribe" in [method.name for method in service.methods]


CHECKS = [
    a_record_is_written_read_and_deleted,
    a_patch_changes_parts_and_a_stale_base_is_a_conflict,
    a_batch_is_decided_in_order_and_an_atomic_one_whole,
    pages_hold_everything_once,
    a_stream_catches_up_and_then_follows,
    a_stream_takes_writes_and_acknowledgements,
    watch_follows_from_a_cursor,
    a_long_poll_answers_with_the_first_change,
    a_cursor_of_another_history_is_told_to_resync,
    a_deleted_record_is_looked_back_at_and_comes_back,
    a_snapshot_has_the_digest_that_is_told,
    what_is_enqueued_is_applied,
    a_shared_space_is_made_exported_and_erased,
    errors_say_what_and_where,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default=os.environ.get("SYNCLINE_TEST_ADDRESS"))
    parser.add_argument("--token", default=os.environ.get("SYNCLINE_TEST_TOKEN"))
    arguments = parser.parse_args()
    if not arguments.address or not arguments.token:
        parser.error("give --address and --token, or the two variables")
    with tempfile.TemporaryDirectory() as folder:
        api = generate(folder)
        with grpc.insecure_channel(arguments.address) as channel:
            calls = Calls(api, channel, arguments.token)
            for check in CHECKS:
                check(calls, f"python-{uuid.uuid4()}")
                print(f"ok  {check.__name__}")
            health_and_reflection_answer_without_a_token(channel)
            print("ok  health_and_reflection_answer_without_a_token")


if __name__ == "__main__":
    main()
