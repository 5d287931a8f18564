"""A backend that serves only what the gate vouches for: it checks the signed statement with PyJWT and tells what it read.

Its one argument is the name it must be addressed by. It prints {"ready": URL}, then takes one line on standard input with the
address of the key set and the issuer, as JSON, and ends when its input does.
"""

import http.server
import json
import os
import sys
import threading

import jwt

# The key set is on this machine, whatever the environment says of proxies.
os.environ["NO_PROXY"] = "*"
AUDIENCE = sys.argv[1]
TRUST = {}
SEEN = set()


class Refused(Exception):
    pass


def judge(handler: http.server.BaseHTTPRequestHandler) -> dict:
    statements = handler.headers.get_all("X-Portcullis-Identity") or []
    if len(statements) != 1:
        raise Refused(f"{len(statements)} statements")
    header = jwt.get_unverified_header(statements[0])
    if header["typ"] != "gate-identity+jwt":
        raise Refused("another type")
    try:
        key = TRUST["keys"].get_signing_key_from_jwt(statements[0])
        claims = jwt.decode(
            statements[0],
            key,
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=TRUST["issuer"],
            options={"require": ["exp", "iat", "iss", "aud", "jti"]},
        )
    except jwt.PyJWTError as error:
        raise Refused(repr(error)) from error
    if claims["exp"] - claims["iat"] > 60:
        raise Refused("good for too long")
    if claims["jti"] in SEEN:
        raise Refused("used before")
    path = handler.path.split("?")[0]
    url = f"{handler.headers['X-Forwarded-Proto']}://{handler.headers['Host']}{path}"
    if (claims["htm"], claims["htu"]) != (handler.command, url):
        raise Refused(f"for another request: {claims['htm']} {claims['htu']}, not {url}")
    if claims["request_id"] != handler.headers["X-Request-Id"]:
        raise Refused("for another request id")
    SEEN.add(claims["jti"])
    return claims


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            status, answer = 200, {"claims": judge(self), "statement": self.headers["X-Portcullis-Identity"]}
        except Refused as error:
            status, answer = 403, {"refused": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"ready": f"http://127.0.0.1:{server.server_address[1]}"}), flush=True)
for line in sys.stdin:
    told = json.loads(line)
    TRUST["keys"] = jwt.PyJWKClient(told["keys"], cache_keys=False, lifespan=1)
    TRUST["issuer"] = told["issuer"]
    print(json.dumps({"trusts": told["issuer"]}), flush=True)
