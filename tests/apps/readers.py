"""Clients that read answers to their end, over HTTP/2 or HTTP/1.1, in clear or within TLS.

Takes one JSON instruction as its argument and prints one JSON account.
"""

import json
import socket
import ssl
import sys

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import InformationalResponseReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived


def client(do: dict) -> httpx.Client:
    secure = "ca" in do
    return httpx.Client(
        http2=do.get("http2", True),
        http1=not do.get("http2", True),
        verify=ssl.create_default_context(cafile=do["ca"]) if secure else True,
        base_url=f"{'https' if secure else 'http'}://{do['address']}",
        headers={"Host": "app.example"},
        timeout=20,
        trust_env=False,
    )


SNI = {"sni_hostname": "app.example"}


def whole(do: dict) -> dict:
    """Asks for each path; says what came, or that it did not end well."""
    accounts = []
    with client(do) as http:
        for path in do["paths"]:
            try:
                response = http.get(path, extensions=SNI)
                accounts.append({"status": response.status_code, "version": response.http_version, "body": response.text})
            except httpx.HTTPError as error:
                accounts.append({"error": type(error).__name__})
    return {"answers": accounts}


def events(do: dict) -> dict:
    """Reads Server-Sent Events and acknowledges each as soon as it is there, on a connection of its own."""
    seen, text = [], ""
    with client(do) as http, client(do) as second:
        with http.stream("GET", "/events", extensions=SNI) as response:
            version = response.http_version
            for part in response.iter_text():
                text += part
                while "\n\n" in text:
                    event, text = text.split("\n\n", 1)
                    number = event.removeprefix("data: ")
                    seen.append(number)
                    second.get(f"/ack/{number}", extensions=SNI).raise_for_status()
    return {"version": version, "seen": seen, "rest": text}


def connect(do: dict) -> tuple:
    host, port = do["address"].rsplit(":", 1)
    context = ssl.create_default_context(cafile=do["ca"])
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(socket.create_connection((host, int(port)), timeout=15), server_hostname="app.example")
    h2 = H2Connection(H2Configuration(header_encoding="latin-1", validate_outbound_headers=False))
    h2.initiate_connection()
    head = [(":method", "POST"), (":scheme", "https"), (":authority", "app.example"), (":path", do["path"])]
    return sock, h2, head


def expecting(do: dict) -> dict:
    """Asks whether it may send its body; sends it after a yes, or after a while without an answer."""
    sock, h2, head = connect(do)
    h2.send_headers(1, [*head, ("expect", "100-continue"), ("content-length", "5")])
    statuses, sent = [], False
    sock.settimeout(do["patience"])
    while True:
        sock.sendall(h2.data_to_send())
        try:
            data = sock.recv(65536)
        except TimeoutError:
            if sent:
                return {"statuses": statuses, "sent": sent, "ended": False}
            h2.send_data(1, b"hello", end_stream=True)
            sent = True
            sock.settimeout(15)
            continue
        if not data:
            return {"statuses": statuses, "sent": sent, "ended": False}
        for event in h2.receive_data(data):
            if isinstance(event, (InformationalResponseReceived, ResponseReceived)):
                statuses.append(dict(event.headers)[":status"])
            elif isinstance(event, (StreamEnded, StreamReset)):
                return {"statuses": statuses, "sent": sent, "ended": isinstance(event, StreamEnded)}


def trailing(do: dict) -> dict:
    """One POST whose body has trailers; says which trailers the answer had."""
    sock, h2, head = connect(do)
    h2.send_headers(1, [*head, ("content-type", do["kind"]), ("te", "trailers")])
    h2.send_data(1, b"hello")
    h2.send_headers(1, [tuple(field) for field in do["trailers"]], end_stream=True)
    trailers = None
    while True:
        sock.sendall(h2.data_to_send())
        data = sock.recv(65536)
        if not data:
            return {"trailers": trailers, "ended": False}
        for event in h2.receive_data(data):
            if isinstance(event, TrailersReceived):
                trailers = [list(field) for field in event.headers]
            elif isinstance(event, (StreamEnded, StreamReset)):
                return {"trailers": trailers, "ended": isinstance(event, StreamEnded)}


def one(do: dict) -> dict:
    """One request without a body, of a method and a media type; gives the fields of the answer."""
    sock, h2, head = connect(do)
    h2.send_headers(1, [(":method", do["method"]), *head[1:], ("content-type", do["kind"])], end_stream=True)
    fields = {}
    while True:
        sock.sendall(h2.data_to_send())
        data = sock.recv(65536)
        if not data:
            return {"fields": fields, "ended": False}
        for event in h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                fields = dict(event.headers)
            elif isinstance(event, (StreamEnded, StreamReset)):
                return {"fields": fields, "ended": isinstance(event, StreamEnded)}


def main():
    do = json.loads(sys.argv[1])
    actions = {function.__name__: function for function in (whole, events, expecting, trailing, one)}
    print(json.dumps(actions[do.pop("do")](do)), flush=True)


main()
