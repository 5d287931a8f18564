"""Does a system do what it is measured for? One that does not is not measured."""
import json
import socket
import time

from . import client, loads, machine, material
from .system import PROFILES, REFUSING, Running

SECURITY_HEADERS = ("strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy",
                    "content-security-policy", "permissions-policy")
BAD_TOKENS = (None, "signature", "expired", "issuer", "audience", "norole", "role")
LOG_SECONDS = 3


def faults(rig, system):
    """What it does not do, as sentences."""
    found = []
    for profile, examine in (("plain", in_clear), ("tls", over_tls), ("policy", policies), ("policy-es", policies), ("limit", limit)):
        if profile == "policy-es" and "token" in system.lacks:
            continue
        try:
            with Running(system, PROFILES[profile], rig) as running:
                found += [f"{profile}: {fault}" for fault in examine(running)]
        except (RuntimeError, OSError) as error:
            found.append(f"{profile}: {error}")
    return found


def in_clear(running):
    answer = client.get(running, "/items", {}, clear=True)
    if answer.status != 200 or len(answer.body) != 1024:
        yield f"{answer.status} with {len(answer.body)} bytes in clear"


def over_tls(running):
    done = loads.tool(running, "resume", 0.5, "connections=1")
    if done["resumed"] <= done["full"]:
        yield f"sessions are not resumed: {done}"
    context = client.trust(running.rig.keys)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection((machine.HOST, running.tls), 5) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as link:
            if link.selected_alpn_protocol() != "h2":
                yield "no HTTP/2 is offered"
    for path, size in (("/1m", 2**20), ("/100m", 100 * 2**20)):
        answer = client.get(running, path, {})
        if len(answer.body) != size:
            yield f"{path}: {len(answer.body)} of {size} bytes"


def policies(running):
    """Headers, CORS, tokens and the access log."""
    keys, profile = running.rig.keys, running.profile
    answer = client.get(running, "/checked", client.fields(keys, profile))
    if answer.status != 200 or len(answer.body) != 1024:
        yield f"{answer.status} with {len(answer.body)} bytes for a good token"
    missing = [name for name in SECURITY_HEADERS if name not in answer.headers]
    if missing:
        yield f"headers are missing: {missing}"
    if answer.headers.get("access-control-allow-origin") != material.ORIGIN_ALLOWED:
        yield "the allowed origin is not allowed"
    answer = client.get(running, "/checked", client.fields(keys, profile, origin="https://evil.example"))
    if "access-control-allow-origin" in answer.headers:
        yield "another origin is allowed"
    lines = 2
    if "token" not in running.system.lacks:
        for bad in BAD_TOKENS:
            lines += 1
            answer = client.get(running, "/checked", client.fields(keys, profile, token=bad))
            if answer.status not in (401, 403):
                yield f"{answer.status} for a token with a wrong {bad}"
    yield from logged(running, lines)


def logged(running, wanted):
    """One JSON object a request; some write them a little later."""
    end = time.monotonic() + LOG_SECONDS
    lines = []
    while len(lines) < wanted and time.monotonic() < end:
        time.sleep(0.1)
        lines = [line for line in running.log.read_text(errors="replace").splitlines() if "/checked" in line]
    if len(lines) != wanted:
        yield f"{len(lines)} access lines for {wanted} requests"
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            yield f"an access line is not JSON: {line[:200]}"


def limit(running):
    carried = client.fields(running.rig.keys, running.profile)
    statuses = [client.get(running, "/items", carried).status for _ in range(6 * REFUSING)]
    if statuses.count(429) < REFUSING:
        yield f"the limit is not held: {sorted(set(statuses))}"
