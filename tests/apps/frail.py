"""A backend that the fault test kills, stalls, slows and restarts: HTTP/1.1, a thread a connection.

Usage: frail.py ADDRESS PORT (0 = one of the system's); prints `ready PORT`, and `did ID` for each POST before its answer.
SIGUSR1 makes each answer wait, and once more takes that back.
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW = 0.4
PIECES = 16
delay = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(delay)
        kind, number = self.path.strip("/").split("/")
        word = number.encode()
        if kind == "small":
            self.whole(word * 128)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = word * (32768 // PIECES)
        for _ in range(PIECES):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(0.005)
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        os.write(1, b"did %b\n" % self.path.rsplit("/", 1)[1].encode())
        time.sleep(delay)
        self.whole(b"echo:" + body)

    def whole(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """The gate may close at any time; nothing is to be said of it."""


def toggle(*_):
    global delay
    delay = 0.0 if delay else SLOW


signal.signal(signal.SIGUSR1, toggle)
server = Server((sys.argv[1], int(sys.argv[2])), Handler)
os.write(1, b"ready %d\n" % server.server_address[1])
server.serve_forever()
