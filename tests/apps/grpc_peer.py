"""A real gRPC server and a real gRPC client (grpcio), with bytes for messages, so that nothing needs to be generated.

`serve [--cert FILE --key FILE]` prints its address and serves; `call JSON` makes one call after another through the
gate and prints one JSON account.
"""

import json
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "test.Echo"


def fields(metadata) -> dict:
    return {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in metadata or ()}


def unary(request: bytes, context) -> bytes:
    seen = fields(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata(
        (("x-trailing", "2"), ("x-user", "root"), ("set-cookie", "a=b"), ("data-bin", b"\x00\xff"))
    )
    return json.dumps({"request": request.decode(), "metadata": seen}).encode()


def failing(request: bytes, context) -> bytes:
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: \u00e4 100 %")


def stream(request: bytes, context):
    for number in range(int(request)):
        yield f"{number}".encode()


def halfway(request: bytes, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")


def talk(requests, context):
    for request in requests:
        yield b"re: " + request


def collect(requests, context) -> bytes:
    return b",".join(requests)


def slow(request: bytes, context) -> bytes:
    threading.Event().wait(20)
    return b"late"


def serve(arguments: list):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Failing": grpc.unary_unary_rpc_method_handler(failing),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Halfway": grpc.unary_stream_rpc_method_handler(halfway),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if arguments:
        cert, key = (open(name, "rb").read() for name in arguments)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, cert),)))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    server.wait_for_termination()


def outcome(call) -> dict:
    """How a call ended, once its messages were read."""
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": fields(call.initial_metadata()),
        "trailing": fields(call.trailing_metadata()),
    }


class Talk:
    """A conversation: each message is sent only after the answer to the one before, with pauses between."""

    def __init__(self, count: int, pause: float):
        self.count, self.pause, self.answered = count, pause, threading.Semaphore(1)

    def __iter__(self):
        for number in range(self.count):
            if not self.answered.acquire(timeout=15):
                return
            threading.Event().wait(self.pause if number else 0)
            yield f"{number}".encode()


def parts(do: dict):
    for part in do["messages"]:
        yield part.encode()
    threading.Event().wait(do.get("hold", 0))


def one(channel, do: dict) -> dict:
    method, metadata = f"/{SERVICE}/{do['method']}", tuple(do.get("metadata", {}).items())
    message, timeout = do.get("message", "").encode(), do.get("timeout", 15)
    messages = []
    try:
        if do["method"] in ("Unary", "Failing", "Slow"):
            call = channel.unary_unary(method).future(message, timeout=timeout, metadata=metadata)
            messages.append(call.result())
        elif do["method"] == "Collect":
            call = channel.stream_unary(method).future(parts(do), timeout=timeout, metadata=metadata)
            messages.append(call.result())
        elif do["method"] == "Talk":
            talk = Talk(do["count"], do.get("pause", 0))
            call = channel.stream_stream(method)(iter(talk), timeout=timeout, metadata=metadata)
            for answer in call:
                messages.append(answer)
                talk.answered.release()
        else:
            call = channel.unary_stream(method)(message, timeout=timeout, metadata=metadata)
            messages.extend(call)
    except grpc.RpcError:
        pass
    return {"messages": [part.decode() for part in messages], **outcome(call)}


def call(do: dict):
    options = (("grpc.ssl_target_name_override", "app.example"), ("grpc.default_authority", "app.example"))
    trust = grpc.ssl_channel_credentials(open(do["ca"], "rb").read())
    with grpc.secure_channel(do["address"], trust, options) as channel:
        answers = [one(channel, wanted) for wanted in do["calls"]]
    print(json.dumps({"answers": answers}), flush=True)


if sys.argv[1] == "serve":
    serve(sys.argv[2:])
else:
    call(json.loads(sys.argv[2]))
