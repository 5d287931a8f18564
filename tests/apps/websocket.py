"""WebSockets as real parts speak them (the websockets package), and over HTTP/2 on frames written by hand.

Takes one JSON instruction as its argument and prints one JSON account.
"""

import json
import socket
import ssl
import sys
import time

from h2client import Raw, trust
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect
from websockets.sync.server import serve

ENABLE_CONNECT_PROTOCOL = 8


def echo(do: dict) -> dict:
    """Sends each message back, until the standard input ends; `close` has the server close."""

    def handler(websocket):
        for message in websocket:
            if message == "close":
                websocket.close(1001, "going away")
            else:
                websocket.send(message)

    with serve(handler, "127.0.0.1", 0, subprotocols=["chat"]) as server:
        print(json.dumps({"port": server.socket.getsockname()[1]}), flush=True)
        server.serve_forever()
    return {}


def talk(do: dict) -> dict:
    """A real client: says things, notes the echoes, closes."""
    host, port = do["address"].rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), timeout=15)
    try:
        with connect(
            f"wss://app.example{do['path']}",
            sock=plain,
            ssl=trust(do["ca"]),
            server_hostname="app.example",
            origin=do.get("origin"),
            subprotocols=["chat"],
            compression=None,
            proxy=None,
        ) as websocket:
            echoes = []
            for text in do["say"]:
                websocket.send(text)
                echoes.append(websocket.recv(timeout=15))
            return {"echoes": echoes, "subprotocol": websocket.subprotocol}
    except InvalidStatus as error:
        return {"status": error.response.status_code}
    except ConnectionClosed as error:
        return {"echoes": echoes, "closed": error.rcvd and error.rcvd.code}


class Streams:
    """WebSockets on the streams of one HTTP/2 connection."""

    def __init__(self, do: dict):
        from hpack import Decoder

        settings = {SettingsFrame.INITIAL_WINDOW_SIZE: do["window"]} if "window" in do else None
        self.raw, self.decoder = Raw(do, settings), Decoder()
        self.announced, self.goaway = None, None
        self.answers, self.data, self.ended = {}, {}, {}

    def step(self):
        frame = self.raw.frame()
        stream = str(frame.stream_id)
        if isinstance(frame, (SettingsFrame, PingFrame)) and "ACK" not in frame.flags:
            if isinstance(frame, SettingsFrame):
                self.announced = frame.settings.get(ENABLE_CONNECT_PROTOCOL)
            ack = SettingsFrame(0) if isinstance(frame, SettingsFrame) else PingFrame(0, frame.opaque_data)
            ack.flags.add("ACK")
            self.raw.send(ack.serialize())
        elif isinstance(frame, HeadersFrame):
            self.answers[stream] = dict(self.decoder.decode(frame.data))
        elif isinstance(frame, DataFrame):
            self.data[stream] = self.data.get(stream, b"") + frame.data
        elif isinstance(frame, RstStreamFrame):
            self.ended[stream] = f"reset {frame.error_code}"
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code
        if isinstance(frame, (HeadersFrame, DataFrame)) and "END_STREAM" in frame.flags:
            self.ended.setdefault(stream, "end")

    def open(self, stream: int, do: dict):
        fields = {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "https",
            ":path": do.get("path", "/chat"),
            ":authority": "app.example",
            "sec-websocket-version": "13",
            **do.get("fields", {}),
        }
        fields = [(name, value) for name, value in fields.items() if value is not None]
        self.raw.send(self.raw.headers(stream, fields, end_stream=do.get("end_stream", False)))

    def until(self, reached):
        while not reached():
            self.step()

    def send(self, stream: int, data: bytes, end: bool = False):
        frame = DataFrame(stream)
        frame.data = data
        if end:
            frame.flags.add("END_STREAM")
        self.raw.send(frame.serialize())


def stream(do: dict) -> dict:
    """Opens streams one after the other, talks on the first and bears with it to its end, as the instruction says."""
    streams, result, started = Streams(do), {"closed": False}, time.monotonic()
    numbers = [2 * number + 1 for number in range(do.get("streams", 1))]
    first = str(numbers[0])
    try:
        streams.until(lambda: streams.announced is not None)
        for number in numbers:
            streams.open(number, do)
            streams.until(lambda: str(number) in streams.answers or str(number) in streams.ended)
        for text in do.get("say", []):
            frame = Frame(Opcode.TEXT, text.encode()).serialize(mask=True)
            came = len(streams.data.get(first, b"")) + 2 + len(text)
            streams.send(1, frame)
            streams.until(lambda: len(streams.data.get(first, b"")) >= came or first in streams.ended)
        if "bytes" in do:
            streams.send(1, do["bytes"].encode("latin-1"), do.get("finish", False))
        if do.get("to_the_end"):
            started = time.monotonic()
            streams.until(lambda: first in streams.ended)
        if do.get("to_the_close"):
            started = time.monotonic()
            streams.until(lambda: False)
    except (EOFError, ConnectionError, ssl.SSLError):
        result["closed"] = True
    except TimeoutError:
        result["timeout"] = True
    answers = {number: answer.get(":status") for number, answer in streams.answers.items()}
    return {
        **result,
        "announced": streams.announced,
        "statuses": [answers.get(str(number)) for number in numbers],
        "headers": streams.answers.get(first),
        "data": streams.data.get(first, b"").decode("latin-1"),
        "ended": streams.ended.get(first),
        "goaway": streams.goaway,
        "seconds": time.monotonic() - started,
    }


def main():
    do = json.loads(sys.argv[1])
    actions = {function.__name__: function for function in (echo, talk, stream)}
    print(json.dumps(actions[do.pop("do")](do)), flush=True)


main()
