#!/usr/bin/env python3
"""A small stand-in for grpcurl, for machines that do not have it.

It takes the command lines of the README and learns everything about the
contract from the server's reflection service, so a call that works here uses
nothing but what the server tells of itself. Reflection v1 is asked first and
v1alpha if the server lacks it. Not a replacement: plaintext only, and no flags
but those below.

    grpcurl -plaintext [-H 'name: value'] [-d JSON|@] [-max-time S] ADDRESS SERVICE/METHOD
    grpcurl -plaintext ADDRESS list [SERVICE]
    grpcurl -plaintext ADDRESS describe SYMBOL
"""

import argparse
import json
import signal
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2  # noqa: F401, so that details can be printed
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

# The two versions differ in the name of their package only, not on the wire.
REFLECTION_VERSIONS = ("v1", "v1alpha")


class Reflection:
    """Asks the server what it serves."""

    def __init__(self, channel, versions=REFLECTION_VERSIONS):
        self.channel = channel
        self.versions = versions
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()

    def ask(self, **question):
        request = reflection_pb2.ServerReflectionRequest(**question)
        for version in self.versions:
            call = self.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            try:
                response = next(call(iter([request]), timeout=20))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED and version != self.versions[-1]:
                    continue
                raise
            if response.HasField("error_response"):
                raise LookupError(response.error_response.error_message)
            return response
        raise LookupError("no version of reflection to ask with")

    def services(self):
        response = self.ask(list_services="*")
        return sorted(service.name for service in response.list_services_response.service)

    def symbol(self, name):
        """Loads the file that defines the symbol, with all that it imports."""
        self.load(self.ask(file_containing_symbol=name))

    def load(self, response):
        files = {}
        for text in response.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(text)
            files[file.name] = file
        for name in list(files):
            self.add(name, files)

    def add(self, name, files):
        if name in self.known:
            return
        if name not in files:
            self.load(self.ask(file_by_filename=name))
            return
        self.known.add(name)
        for dependency in files[name].dependency:
            self.add(dependency, files)
        self.pool.Add(files[name])


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-H", action="append", default=[], metavar="'name: value'")
    parser.add_argument("-d", default=None, metavar="JSON")
    parser.add_argument("-max-time", type=float, default=None, metavar="SECONDS")
    parser.add_argument("address")
    parser.add_argument("what", help="list, describe or SERVICE/METHOD")
    parser.add_argument("symbol", nargs="?")
    arguments = parser.parse_args()
    if not arguments.plaintext:
        fail("this stand-in speaks plaintext only: give -plaintext")
    return arguments


def metadata(headers):
    pairs = [header.split(":", 1) for header in headers]
    return [(name.strip().lower(), value.strip()) for name, value in pairs]


def requests(text, message_class):
    """The messages in JSON texts that follow each other."""
    if text == "@":
        text = sys.stdin.read()
    decoder, at, text = json.JSONDecoder(), 0, text or ""
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        yield json_format.ParseDict(value, message_class())


def show(message, pool):
    print(json_format.MessageToJson(message, descriptor_pool=pool), flush=True)


def show_error(error):
    print("ERROR:", file=sys.stderr)
    code = "".join(word.capitalize() for word in error.code().name.split("_"))
    print(f"  Code: {code}\n  Message: {error.details()}", file=sys.stderr)
    status = rpc_status.from_call(error)
    details = status.details if status else []
    for detail in details:
        print(f"  Detail: {json_format.MessageToJson(detail, indent=None)}", file=sys.stderr)
    return 64 + error.code().value[0]


def describe(reflection, name):
    reflection.symbol(name)
    pool = reflection.pool
    for find, show_it in (
        (pool.FindServiceByName, describe_service),
        (pool.FindMessageTypeByName, describe_message),
        (pool.FindEnumTypeByName, describe_enum),
    ):
        try:
            return show_it(find(name))
        except KeyError:
            continue
    fail(f"{name} is neither a service, a message nor an enum")


def describe_service(service):
    print(f"service {service.name} {{")
    for method in service.methods:
        asks, answers = (
            ("stream " if streams else "") + f".{message.full_name}"
            for message, streams in (
                (method.input_type, method.client_streaming),
                (method.output_type, method.server_streaming),
            )
        )
        print(f"  rpc {method.name} ( {asks} ) returns ( {answers} );")
    print("}")


def describe_message(message):
    print(f"message {message.name} {{")
    for field in message.fields:
        named = field.message_type or field.enum_type
        kinds = {getattr(FieldDescriptor, name): name[5:].lower() for name in KIND_NAMES}
        kind = f".{named.full_name}" if named else kinds[field.type]
        repeated = "repeated " if field.is_repeated else ""
        print(f"  {repeated}{kind} {field.name} = {field.number};")
    print("}")


KIND_NAMES = [name for name in dir(FieldDescriptor) if name.startswith("TYPE_")]


def describe_enum(enum):
    print(f"enum {enum.name} {{")
    for value in enum.values:
        print(f"  {value.name} = {value.number};")
    print("}")


def list_names(reflection, service):
    if service is None:
        print("\n".join(reflection.services()))
        return
    reflection.symbol(service)
    for method in reflection.pool.FindServiceByName(service).methods:
        print(f"{service}.{method.name}")


def call(channel, reflection, arguments):
    service_name, _, method_name = arguments.what.replace("/", ".").rpartition(".")
    reflection.symbol(service_name)
    method = reflection.pool.FindServiceByName(service_name).FindMethodByName(method_name)
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)
    messages = list(requests(arguments.d, request_class))
    if not method.client_streaming and not messages:
        messages = [request_class()]
    start = channel.stream_stream(
        f"/{service_name}/{method_name}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    headers = metadata(arguments.H)
    for response in start(iter(messages), metadata=headers, timeout=arguments.max_time):
        show(response, reflection.pool)


def main():
    # Ctrl-C and a closed pipe end it silently, as they end grpcurl.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = parse_arguments()
    with grpc.insecure_channel(arguments.address) as channel:
        reflection = Reflection(channel)
        try:
            if arguments.what == "list":
                list_names(reflection, arguments.symbol)
            elif arguments.what == "describe":
                describe(reflection, arguments.symbol or fail("describe what?"))
            else:
                call(channel, reflection, arguments)
        except grpc.RpcError as error:
            sys.exit(show_error(error))
        except (LookupError, ValueError, json_format.ParseError) as error:
            fail(f"{arguments.what}: {error}")


if __name__ == "__main__":
    main()
