"""A scripted HTTP/2 backend: the path of a request says what becomes of it.

Prints one JSON object a line: first its address, then each connection, request, reset and end as it comes.
"""

import argparse
import json
import socket
import ssl
import threading
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

STATE = {"connections": 0, "refused": set(), "well": True, "acknowledged": set()}
HELD = []
LOCK = threading.RLock()
SAID = threading.Condition(LOCK)


def tell(**event):
    with LOCK:
        print(json.dumps(event), flush=True)


class Peer:
    """One connection of the gate."""

    def __init__(self, sock, settings: dict):
        with LOCK:
            self.number = STATE["connections"]
            STATE["connections"] += 1
        self.sock = sock
        self.lock = threading.RLock()
        self.streams: dict[int, dict] = {}
        self.waiting: dict[int, int] = {}
        config = H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        tell(event="connection", connection=self.number)

    def flush(self):
        with self.lock:
            data = self.h2.data_to_send()
            if data:
                self.sock.sendall(data)

    def serve(self):
        try:
            self.flush()
            while data := self.sock.recv(65536):
                with self.lock:
                    events = self.h2.receive_data(data)
                for event in events:
                    with self.lock:
                        self.meet(event)
                self.flush()
        except (OSError, ProtocolError) as error:
            tell(event="broken", connection=self.number, why=repr(error))
        finally:
            self.sock.close()
            tell(event="closed", connection=self.number)

    def meet(self, event):
        if isinstance(event, RequestReceived):
            fields = [list(field) for field in event.headers]
            self.streams[event.stream_id] = {"headers": fields, "body": 0, "trailers": None, "deaf": False}
            named = dict(event.headers)
            tell(event="request", connection=self.number, stream=event.stream_id, path=named[":path"], headers=fields)
            self.begin(event.stream_id, named[":path"])
        elif isinstance(event, DataReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream["body"] += len(event.data)
                self.taken(event.stream_id, stream)
            if stream is None or not stream["deaf"]:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.streams[event.stream_id]["trailers"] = [list(field) for field in event.headers]
        elif isinstance(event, StreamEnded):
            self.end(event.stream_id)
        elif isinstance(event, StreamReset):
            self.streams.pop(event.stream_id, None)
            self.waiting.pop(event.stream_id, None)
            with LOCK:
                HELD[:] = [held for held in HELD if held != (self, event.stream_id)]
            tell(event="reset", connection=self.number, stream=event.stream_id, code=int(event.error_code))
        elif isinstance(event, ConnectionTerminated):
            tell(event="goaway", connection=self.number, code=int(event.error_code))
        elif isinstance(event, WindowUpdated):
            for stream_id in list(self.waiting):
                self.pump(stream_id)

    def head(self, stream_id, status="200", fields=(), end=False):
        with self.lock:
            self.h2.send_headers(stream_id, [(":status", status), *fields], end_stream=end)

    def answer(self, stream_id, status="200", body=b"ok", fields=()):
        with self.lock:
            self.head(stream_id, status, [("content-length", str(len(body))), *fields])
            self.h2.send_data(stream_id, body, end_stream=True)
            self.flush()

    def pump(self, stream_id):
        """Sends as much of a large body as the windows take."""
        with self.lock:
            while left := self.waiting.get(stream_id, 0):
                room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, left)
                if room == 0:
                    return
                self.waiting[stream_id] = left - room
                self.h2.send_data(stream_id, b"x" * room, end_stream=left == room)
            self.waiting.pop(stream_id, None)

    def begin(self, stream_id, path):
        """What happens as soon as the head is there."""
        h2 = self.h2
        if path == "/refuse" or (path == "/refuse-once" and path not in STATE["refused"]):
            STATE["refused"].add(path)
            h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            self.streams.pop(stream_id)
        elif path == "/goaway-below" and path not in STATE["refused"]:
            STATE["refused"].add(path)
            self.streams.pop(stream_id)
            self.go_away(stream_id - 2)
        elif path == "/goaway-at":
            self.go_away(stream_id)
            self.flush()
            self.sock.shutdown(socket.SHUT_RDWR)
        elif path == "/last":
            # It is answered later, and no further request is taken on this connection.
            self.go_away(stream_id)
        elif path == "/close":
            self.sock.shutdown(socket.SHUT_RDWR)
        elif path == "/deaf":
            # The same, and the window for the body is never opened again.
            self.streams[stream_id]["deaf"] = True
            self.answer(stream_id)
        elif path == "/full":
            # The whole answer once the window for the body is used up, which is never opened again.
            self.streams[stream_id]["deaf"] = True
        elif path == "/early":
            # The whole answer, while the request body goes on: the stream counts until that has ended too.
            self.answer(stream_id)

    def taken(self, stream_id, stream):
        """What happens as a body comes."""
        path = dict(map(tuple, stream["headers"]))[":path"]
        if path == "/full":
            tell(event="taken", connection=self.number, stream=stream_id, body=stream["body"])
            if stream["body"] == STATE["window"]:
                self.answer(stream_id)

    def go_away(self, last: int):
        self.flush()
        self.sock.sendall(GoAwayFrame(0, last_stream_id=max(last, 0), error_code=0).serialize())

    def end(self, stream_id):
        """What happens when the request is whole."""
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            return
        named = dict(map(tuple, stream["headers"]))
        path = named[":path"]
        tell(event="whole", connection=self.number, stream=stream_id, path=path, body=stream["body"],
             trailers=stream["trailers"])
        h2 = self.h2
        if path in ("/hang", "/goaway-at", "/close", "/refuse", "/early", "/deaf", "/full"):
            pass
        elif path == "/truncate":
            self.head(stream_id)
            h2.send_data(stream_id, b"half")
            self.flush()
            h2.reset_stream(stream_id, ErrorCodes.NO_ERROR)
        elif path == "/reset":
            self.head(stream_id)
            h2.send_data(stream_id, b"half")
            self.flush()
            h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
        elif path == "/short":
            self.head(stream_id, fields=[("content-length", "100")])
            h2.send_data(stream_id, b"half", end_stream=True)
        elif path == "/long":
            self.head(stream_id, fields=[("content-length", "2")])
            h2.send_data(stream_id, b"more than two", end_stream=True)
        elif path.startswith("/field/"):
            _, _, name, value = path.split("/")
            self.answer(stream_id, fields=[(name, value)])
        elif path == "/end-apart":
            # The end comes in a frame of its own, and not before the client has had time to take what there is.
            self.head(stream_id, fields=[("content-length", "5")])
            h2.send_data(stream_id, b"hello")
            self.flush()
            threading.Timer(0.2, self.end_apart, (stream_id,)).start()
        elif path == "/two-lengths":
            self.answer(stream_id, fields=[("content-length", "2")])
        elif path == "/many-fields":
            self.answer(stream_id, fields=[(f"x-{number}", "y" * 1000) for number in range(80)])
        elif path == "/switch":
            h2.send_headers(stream_id, [(":status", "101"), ("upgrade", "websocket")])
            self.answer(stream_id)
        elif path == "/hints":
            h2.send_headers(stream_id, [(":status", "103"), ("link", "</style.css>; rel=preload")])
            self.flush()
            self.answer(stream_id, body=b"final")
        elif path == "/trailers":
            self.head(stream_id)
            h2.send_data(stream_id, b"ok")
            h2.send_headers(stream_id, [("x-checksum", "1"), ("set-cookie", "a=b")], end_stream=True)
        elif path.startswith("/big/"):
            self.head(stream_id)
            self.waiting[stream_id] = int(path.removeprefix("/big/"))
            self.pump(stream_id)
        elif path in ("/hold", "/last"):
            with LOCK:
                HELD.append((self, stream_id))
        elif path == "/release":
            with LOCK:
                held, HELD[:] = HELD[:], []
            for peer, waiting in held:
                try:
                    peer.answer(waiting)
                except OSError:
                    pass  # The connection is gone, and who waited on it.
            self.answer(stream_id)
        elif path == "/events":
            threading.Thread(target=self.events, args=(stream_id,), daemon=True).start()
        elif path.startswith("/ack/"):
            with SAID:
                STATE["acknowledged"].add(path.removeprefix("/ack/"))
                SAID.notify_all()
            self.answer(stream_id)
        elif path in ("/fail", "/recover"):
            STATE["well"] = path == "/recover"
            self.answer(stream_id)
        elif path == "/healthz":
            self.answer(stream_id, status="200" if STATE["well"] else "503")
        else:
            account = {"headers": stream["headers"], "body": stream["body"], "trailers": stream["trailers"],
                       "connection": self.number}
            self.answer(stream_id, body=json.dumps(account).encode(), fields=[("content-type", "application/json")])

    def end_apart(self, stream_id):
        with self.lock:
            try:
                self.h2.send_data(stream_id, b"", end_stream=True)
            except ProtocolError:
                return  # It was reset meanwhile.
        self.flush()

    def events(self, stream_id):
        """Server-Sent Events, each only after the client has said that it saw the one before."""
        self.head(stream_id, fields=[("content-type", "text/event-stream")])
        self.flush()
        for number in range(4):
            with self.lock:
                self.h2.send_data(stream_id, f"data: {number}\n\n".encode(), end_stream=number == 3)
                self.flush()
            with SAID:
                if not SAID.wait_for(lambda: str(number) in STATE["acknowledged"], timeout=15):
                    tell(event="unseen", number=number)
                    self.sock.shutdown(socket.SHUT_RDWR)
                    return
            tell(event="seen", number=number)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--cert")
    arguments.add_argument("--key")
    arguments.add_argument("--alpn", default="")
    arguments.add_argument("--streams", type=int, default=100)
    arguments.add_argument("--window", type=int, default=65535)
    arguments.add_argument("--slow-settings", type=float, default=0.0)
    do = arguments.parse_args()
    STATE["window"] = do.window
    context = None
    if do.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(do.cert, do.key)
        if do.alpn:
            context.set_alpn_protocols(do.alpn.split(","))
    settings = {
        SettingCodes.MAX_CONCURRENT_STREAMS: do.streams,
        SettingCodes.INITIAL_WINDOW_SIZE: do.window,
        SettingCodes.MAX_HEADER_LIST_SIZE: 65536,
    }
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    host, port = listener.getsockname()
    tell(address=f"{host}:{port}")

    def take(sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                sock = context.wrap_socket(sock, server_side=True)
        except OSError as error:
            tell(event="handshake", why=repr(error))
            return
        time.sleep(do.slow_settings)
        Peer(sock, settings).serve()

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=take, args=(sock,), daemon=True).start()


main()
