"""HTTP/2 as real clients speak it (httpx) and as attackers do (frames written by hand with h2's own parts).

Takes one JSON instruction as its argument and prints one JSON account.
"""

import asyncio
import http.client
import json
import socket
import ssl
import sys
import threading
import time

import httpx
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def trust(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def manners(do: dict) -> dict:
    return {
        "verify": trust(do["ca"]),
        "base_url": f"https://{do['address']}",
        "headers": {"Host": do.get("host", "app.example")},
        "timeout": 20,
        "trust_env": False,
    }


def client(do: dict, http2: bool = True) -> httpx.Client:
    return httpx.Client(http2=http2, http1=not http2, **manners(do))


def account(response: httpx.Response) -> dict:
    return {
        "status": response.status_code,
        "version": response.http_version,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers.raw],
        "body": response.text,
    }


def fetch(do: dict) -> dict:
    """One request after another on one connection."""
    answers = []
    with client(do) as http:
        for request in do["requests"]:
            response = http.request(
                request.get("method", "GET"),
                request["path"],
                headers=request.get("headers"),
                content=request.get("body"),
                extensions={"sni_hostname": do.get("sni", "app.example")},
            )
            answers.append(account(response))
    return {"answers": answers}


def concurrent(do: dict) -> dict:
    """Many requests at once on one connection: in one thread, since h2 is not made for several."""

    async def all_at_once():
        async with httpx.AsyncClient(http2=True, http1=False, **manners(do)) as http:

            async def one():
                try:
                    response = await http.get(do["path"], extensions={"sni_hostname": "app.example"})
                    return [response.status_code, response.http_version]
                except httpx.HTTPError as error:
                    return repr(error)

            return await asyncio.gather(*(one() for _ in range(do["count"])))

    return {"statuses": asyncio.run(all_at_once())}


def stream(do: dict) -> dict:
    """The times at which the parts of a body arrive."""
    started, times = time.monotonic(), []
    with client(do) as http:
        with http.stream("GET", do["path"], extensions={"sni_hostname": "app.example"}) as response:
            for _ in response.iter_raw():
                times.append(time.monotonic() - started)
    return {"times": times}


def load(do: dict) -> dict:
    """Constant load from several clients until the standard input ends; counts what did not answer 200."""
    stop, lock = threading.Event(), threading.Lock()
    counts, failures = {"requests": 0}, []

    def worker(number: int):
        with client(do, http2=number % 2 == 0 and do.get("http2", True)) as http:
            while not stop.is_set():
                try:
                    response = http.get(do["path"], extensions={"sni_hostname": "app.example"})
                    failure = None if response.status_code == 200 else str(response.status_code)
                except httpx.ConnectError as error:
                    failure = None if do.get("may_refuse_connections") else repr(error)
                    if failure is None:
                        return
                except httpx.HTTPError as error:
                    failure = repr(error)
                with lock:
                    counts["requests"] += 1
                    if failure:
                        failures.append(failure)
                    if counts["requests"] == 20:
                        print(json.dumps({"warm": True}), flush=True)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(do.get("workers", 4))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    return {"requests": counts["requests"], "failures": failures[:20], "failed": len(failures)}


class Raw:
    """An HTTP/2 connection on which any frame can be written."""

    def __init__(self, do: dict, settings: dict | None = None):
        host, port = do["address"].rsplit(":", 1)
        context = trust(do["ca"])
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((host, int(port)), timeout=15)
        self.socket = context.wrap_socket(plain, server_hostname=do.get("sni", "app.example"))
        self.encoder = Encoder()
        self.send(PREFACE, SettingsFrame(0, settings=settings or {}).serialize())

    def send(self, *parts: bytes):
        self.socket.sendall(b"".join(parts))

    def headers(self, stream: int, fields: list, end_stream: bool) -> bytes:
        frame = HeadersFrame(stream)
        frame.data = self.encoder.encode([(name, value) for name, value in fields], huffman=False)
        frame.flags.add("END_HEADERS")
        if end_stream:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            block = self.socket.recv(length - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def frame(self) -> Frame:
        head = self.exactly(9)
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self.exactly(length)))
        return frame

    def outcome(self, streams: set) -> dict:
        """What became of each stream, and of the connection, until all are decided or it closes."""
        from hpack import Decoder

        decoder, result = Decoder(), {"streams": {}, "goaway": None, "closed": False}
        waiting = set(streams)
        try:
            while waiting:
                frame = self.frame()
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    ack = SettingsFrame(0)
                    ack.flags.add("ACK")
                    self.send(ack.serialize())
                elif isinstance(frame, HeadersFrame):
                    fields = dict(decoder.decode(frame.data))
                    result["streams"][str(frame.stream_id)] = {"status": fields.get(":status")}
                    waiting.discard(frame.stream_id)
                elif isinstance(frame, RstStreamFrame):
                    result["streams"].setdefault(str(frame.stream_id), {})["reset"] = frame.error_code
                    waiting.discard(frame.stream_id)
                elif isinstance(frame, GoAwayFrame):
                    result["goaway"] = frame.error_code
                    break
        except (EOFError, ConnectionError, ssl.SSLError):
            result["closed"] = True
        except TimeoutError:
            result["timeout"] = True
        return result


def raw(do: dict) -> dict:
    """One stream of exactly these fields (JSON text is taken as Latin-1), with DATA frames if given."""
    connection = Raw(do)
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in do["fields"]]
    data = do.get("data", [])
    connection.send(connection.headers(1, fields, end_stream=not data))
    for number, text in enumerate(data):
        frame = DataFrame(1)
        frame.data = text.encode("latin-1")
        if number == len(data) - 1:
            frame.flags.add("END_STREAM")
        connection.send(frame.serialize())
    return connection.outcome({1})


def continuation_flood(do: dict) -> dict:
    """HEADERS without END_HEADERS, then CONTINUATION frames without end."""
    connection = Raw(do)
    first = HeadersFrame(1)
    first.data = connection.encoder.encode(
        [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "app.example")], huffman=False
    )
    sent = 0
    try:
        connection.send(first.serialize())
        for number in range(do["frames"]):
            frame = ContinuationFrame(1)
            frame.data = b"\x00\x07x-%05d\x7f\x81\x07" % (number % 100000) + b"v" * 1030
            connection.send(frame.serialize())
            sent += 1
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass
    return {"sent": sent, **connection.outcome({1})}


GET = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "app.example")]


def rapid_reset(do: dict) -> dict:
    """HEADERS at once followed by RST_STREAM, over and over; or by a WINDOW_UPDATE of 0, which makes the peer reset."""
    connection = Raw(do)
    sent = 0
    try:
        for number in range(do["count"]):
            stream_id = 2 * number + 1
            if do["made_by"] == "us":
                reset = RstStreamFrame(stream_id)
                reset.error_code = 8
                ending = reset.serialize()
            else:
                # Length 4, type 8, no flags, increment 0: hyperframe refuses to build it.
                ending = b"\x00\x00\x04\x08\x00" + stream_id.to_bytes(4, "big") + b"\x00\x00\x00\x00"
            connection.send(connection.headers(stream_id, GET, end_stream=True), ending)
            sent += 1
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass
    return {"sent": sent, **connection.outcome({2 * do["count"] + 1})}


def crumbs(do: dict) -> dict:
    """Many streams, each with thousands of one-byte references to one cookie field."""
    connection = Raw(do)
    streams = [2 * number + 1 for number in range(do["streams"])]
    try:
        for stream_id in streams:
            first = HeadersFrame(stream_id)
            first.data = connection.encoder.encode([*GET, ("cookie", "a=1")], huffman=False)
            first.flags.add("END_STREAM")
            # An indexed field is one byte: the newest entry of the dynamic table is 62.
            rest = ContinuationFrame(stream_id)
            rest.data = b"\xbe" * do["fields"]
            rest.flags.add("END_HEADERS")
            connection.send(first.serialize(), rest.serialize())
    except (ConnectionError, ssl.SSLError, TimeoutError):
        pass
    return connection.outcome(set(streams))


def closed_window(do: dict) -> dict:
    """Asks for an answer and never opens the window for its body; says how long the peer bore it."""
    connection = Raw(do, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    started = time.monotonic()
    connection.send(connection.headers(1, GET, end_stream=True))
    result = {"ended": None}
    try:
        while True:
            frame = connection.frame()
            if isinstance(frame, (RstStreamFrame, GoAwayFrame)):
                result["ended"] = type(frame).__name__
                break
    except (EOFError, ConnectionError, ssl.SSLError):
        result["ended"] = "closed"
    except TimeoutError:
        pass
    return {**result, "seconds": time.monotonic() - started}


def patient(do: dict) -> dict:
    """One slow request, waited for through a graceful GOAWAY, and whether the peer closes after it."""
    connection = Raw(do)
    connection.send(connection.headers(1, GET, end_stream=True))
    print(json.dumps({"sent": True}), flush=True)
    result = {"body": "", "ended": False, "goaway": None, "closed": False}
    try:
        while True:
            frame = connection.frame()
            if isinstance(frame, (SettingsFrame, PingFrame)) and "ACK" not in frame.flags:
                ack = SettingsFrame(0) if isinstance(frame, SettingsFrame) else PingFrame(0, frame.opaque_data)
                ack.flags.add("ACK")
                connection.send(ack.serialize())
            elif isinstance(frame, GoAwayFrame):
                result["goaway"] = frame.error_code
            elif isinstance(frame, DataFrame):
                result["body"] += frame.data.decode()
            elif isinstance(frame, RstStreamFrame):
                result["reset"] = frame.error_code
            if "END_STREAM" in frame.flags:
                result["ended"] = True
    except (EOFError, ConnectionError, ssl.SSLError):
        result["closed"] = True
    return result


def crowd(do: dict) -> dict:
    """Clients of every kind, on connections of their own and on kept ones, until the standard input ends.

    They do as a peer asks: Connection: close (RFC 9112 section 9.6), GOAWAY (RFC 9113 section 6.8). Nothing is tried again
    but a stream that a GOAWAY says was not taken.
    """
    stop, lock = threading.Event(), threading.Lock()
    counts, failures = {}, []
    context = trust(do["ca"])

    def connect(scheme: str) -> http.client.HTTPConnection:
        host, port = do[scheme].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.connect()
        if scheme == "https":
            connection.sock = context.wrap_socket(connection.sock, server_hostname="app.example")
        return connection

    def one_by_one(scheme: str, kept: bool):
        connection = None
        while not stop.is_set():
            connection = connection or connect(scheme)
            connection.putrequest("GET", "/load", skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", "app.example")
            connection.endheaders()
            response = connection.getresponse()
            response.read()
            yield response.status
            if response.will_close or not kept:
                connection.close()
                connection = None

    def streams():
        connection, number = None, 1
        while not stop.is_set():
            if connection is None:
                connection, number = Raw({"address": do["https"], "ca": do["ca"]}), 1
            connection.send(connection.headers(number, GET, end_stream=True))
            status, leaving, ended = None, None, False
            while not ended and (leaving is None or leaving >= number):
                frame = connection.frame()
                if isinstance(frame, (SettingsFrame, PingFrame)) and "ACK" not in frame.flags:
                    ack = SettingsFrame(0) if isinstance(frame, SettingsFrame) else PingFrame(0, frame.opaque_data)
                    ack.flags.add("ACK")
                    connection.send(ack.serialize())
                elif isinstance(frame, GoAwayFrame):
                    leaving = frame.last_stream_id
                elif isinstance(frame, HeadersFrame):
                    # The first byte is an indexed field, and 8 is `:status: 200` (RFC 7541 appendix A).
                    status = 200 if frame.data[:1] == b"\x88" else frame.data.hex()
                elif isinstance(frame, RstStreamFrame):
                    raise ConnectionError(f"stream {number} reset: {frame.error_code}")
                ended = frame.stream_id == number and "END_STREAM" in frame.flags
            if ended:
                yield status
            number += 2
            if leaving is not None:
                connection.socket.close()
                connection = None

    def worker(kind: str, statuses):
        failure = None
        try:
            for status in statuses:
                with lock:
                    counts[kind] = counts.get(kind, 0) + 1
                    if status != 200:
                        failures.append(f"{kind}: {status}")
                    if len(counts) == 5 and sum(counts.values()) >= 100 and counts.setdefault("warm", 0) == 0:
                        counts["warm"] = 1
                        print(json.dumps({"warm": True}), flush=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, a request was lost
            failure = f"{kind}: {error!r}"
        if failure:
            with lock:
                failures.append(failure)

    kinds = {
        "new http": one_by_one("http", kept=False),
        "kept http": one_by_one("http", kept=True),
        "new https": one_by_one("https", kept=False),
        "kept https": one_by_one("https", kept=True),
        "h2": streams(),
    }
    threads = [threading.Thread(target=worker, args=kind) for kind in kinds.items()]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    counts.pop("warm", None)
    return {"requests": counts, "failures": failures[:20], "failed": len(failures)}


def main():
    do = json.loads(sys.argv[1])
    actions = {
        function.__name__: function
        for function in (fetch, concurrent, stream, load, raw, continuation_flood, rapid_reset, crumbs, closed_window, crowd, patient)
    }
    print(json.dumps(actions[do.pop("do")](do)), flush=True)


if __name__ == "__main__":
    main()
