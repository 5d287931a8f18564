"""A legacy app that knows nothing of hardening: no headers, plain cookies, inline script, a stack trace on a crash."""

import hashlib
import time

from flask import Flask, Response, jsonify, make_response, request

app = Flask(__name__)

PAGE = """<!doctype html><title>Legacy</title><h1>Hello</h1>
<script>document.title = 'inline'</script>"""


@app.get("/")
def home():
    page = make_response(PAGE)
    page.headers["X-Powered-By"] = "Legacy/2.2"
    page.headers["Access-Control-Allow-Origin"] = "*"
    page.set_cookie("session", "plain")
    page.set_cookie("XSRF-TOKEN", "for-scripts")
    return page


@app.get("/healthz")
def healthz():
    return "ok"


@app.route("/api/<path:rest>", methods=["GET", "PUT", "DELETE"])
@app.route("/api", defaults={"rest": ""}, methods=["GET", "PUT", "DELETE"])
def api(rest):
    return jsonify(
        path=rest,
        method=request.method,
        subject=request.headers.get("X-Auth-Subject"),
        roles=request.headers.get("X-Auth-Roles"),
    )


@app.post("/upload")
def upload():
    digest, size = hashlib.sha256(), 0
    while block := request.stream.read(65536):
        digest.update(block)
        size += len(block)
    return jsonify(size=size, sha256=digest.hexdigest())


@app.get("/stream")
def stream():
    def parts():
        for number in range(5):
            yield f"part {number}\n"
            time.sleep(0.1)

    return Response(parts(), mimetype="text/plain")


@app.get("/large")
def large():
    block = bytes(range(256)) * 256
    return Response((block for _ in range(64)), mimetype="application/octet-stream")


@app.get("/slow")
def slow():
    time.sleep(float(request.args.get("seconds", "1")))
    return "late"


@app.get("/crash")
def crash():
    trace = 'Traceback (most recent call last):\n  File "legacy.py", line 1, in crash\nZeroDivisionError: division by zero\n'
    return Response(trace, status=500, mimetype="text/plain")


@app.get("/headers")
def headers():
    return jsonify([[name, value] for name, value in request.headers.items()])
