"""An issuer for the tests: serves a JWKS, mints tokens of any shape, sound or forged, and answers questions about them.

It prints {"ready": URL}, then answers each JSON instruction on standard input with one JSON line on standard output,
and ends when its input does. Keys and signatures come from PyJWT and cryptography: no code is shared with the proxy.
"""

import argparse
import base64
import collections
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import threading
import time
import urllib.parse

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ALGORITHMS = get_default_algorithms()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Keys:
    """One key of each kind, named after its kind and generation."""

    def __init__(self, generation: int):
        self.private = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.names = {alg: f"{alg.lower()}-{generation}" for alg in self.private}

    def jwks(self) -> dict:
        keys = []
        for alg, key in self.private.items():
            jwk = ALGORITHMS[alg].to_jwk(key.public_key(), as_dict=True)
            jwk.pop("key_ops", None)
            keys.append({**jwk, "kid": self.names[alg], "alg": alg, "use": "sig"})
        return {"keys": keys}


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.generation = 1
        self.keys = Keys(1)
        self.foreign = Keys(0)
        self.down = False
        self.delay = 0.0
        self.fetches = collections.Counter()
        self.known = {}
        self.unknown_status = 200
        self.questions = {"at_once": 0, "most": 0, "authorization": None, "form": None}

    def mint(self, alg: str, header: dict, payload: str, foreign_key: bool) -> str:
        key_alg = "RS256" if alg.startswith("HS256") else alg
        full = {"alg": "HS256" if alg.startswith("HS256") else alg, "typ": "JWT"}
        if key_alg in self.keys.names:
            full["kid"] = self.keys.names[key_alg]
        full.update(header)
        full = {name: value for name, value in full.items() if value is not None}
        signed = f"{b64(json.dumps(full).encode())}.{b64(payload.encode())}"
        keys = self.foreign if foreign_key else self.keys
        if alg == "none":
            signature = b""
        elif alg.startswith("HS256"):
            secret = keys.private["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        else:
            signature = ALGORITHMS[alg].sign(signed.encode(), keys.private[alg])
        return f"{signed}.{b64(signature)}"


STATE = State()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with STATE.lock:
            STATE.fetches[self.path] += 1
            down, delay, keys = STATE.down, STATE.delay, STATE.keys
        time.sleep(delay)
        status, body = (503, b"down") if down else (200, json.dumps(keys.jwks()).encode())
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        """Token introspection (RFC 7662): what is known of a token, else that it is not active."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        token = urllib.parse.parse_qs(form)["token"][0]
        with STATE.lock:
            STATE.fetches[self.path] += 1
            told = STATE.questions
            told["at_once"] += 1
            told["most"] = max(told["most"], told["at_once"])
            told["authorization"], told["form"] = self.headers["Authorization"], form
            down, delay = STATE.down, STATE.delay
            members = STATE.known.get(token, {"active": False})
            status = 200 if token in STATE.known else STATE.unknown_status
        time.sleep(delay)
        with STATE.lock:
            told["at_once"] -= 1
        status, body = (503, b"down") if down else (status, json.dumps(members).encode())
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def obey(instruction: dict) -> dict:
    match instruction.pop("do"):
        case "mint":
            return {"token": STATE.mint(**instruction)}
        case "rotate":
            STATE.generation += 1
            STATE.keys = Keys(STATE.generation)
        case "down":
            STATE.down = True
        case "up":
            STATE.down = False
        case "delay":
            STATE.delay = instruction["milliseconds"] / 1000
        case "fetches":
            return {"fetches": STATE.fetches[instruction["path"]]}
        case "know":
            STATE.known[instruction["token"]] = instruction["members"]
        case "unknown":
            STATE.unknown_status = instruction["status"]
        case "questions":
            return STATE.questions
        case "jwks":
            return {"jwks": STATE.keys.jwks()}
        case other:
            return {"error": f"unknown instruction {other}"}
    return {"done": True}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    http.server.ThreadingHTTPServer.request_queue_size = 128
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    base = f"http://127.0.0.1:{server.server_address[1]}"
    if arguments.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert, arguments.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        base = f"https://localhost:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"ready": base}), flush=True)
    for line in sys.stdin:
        with STATE.lock:
            answer = obey(json.loads(line))
        print(json.dumps(answer), flush=True)


main()
