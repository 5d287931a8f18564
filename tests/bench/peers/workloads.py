"""What is measured: one entry for each row of the table."""
from . import client, loads, machine
from .system import REFUSING

IDLE_CONNECTIONS = 5000
HANDSHAKES_AT_ONCE = 16


class Workload:
    """A load under a profile, and the figure that stands for it."""

    def __init__(self, title, profile, load, **more):
        self.title, self.profile, self.load = title, profile, load
        # What is measured after the warm-up and its figures, where that is not the same load once more.
        self.after = more.get("after", lambda running, seconds, _: load(running, seconds))
        # The figure's name in a measurement.
        self.figure = more.get("figure", "cpu_us")
        self.needs = more.get("needs")
        # The status that the load is meant to get, asked once more after it.
        self.status, self.token = more.get("status", 200), more.get("token", "tokens")
        self.warm_up = more.get("warm_up", 1)


def plain(running, seconds):
    return loads.wrk(running, seconds, clear=True)


def kept(running, seconds):
    return loads.wrk(running, seconds)


def many_tokens(running, seconds):
    return loads.wrk(running, seconds, tokens=10_000)


def bad_signature(running, seconds):
    return loads.wrk(running, seconds, token="signature")


def no_token(running, seconds):
    return loads.wrk(running, seconds, token=None)


def full_handshakes(running, seconds):
    done = loads.tool(running, "full", seconds, f"connections={HANDSHAKES_AT_ONCE}")
    if done["resumed"]:
        raise RuntimeError(f"{done['resumed']} handshakes were resumed, none should be")
    return done


def resumed_handshakes(running, seconds):
    done = loads.tool(running, "resume", seconds, f"connections={HANDSHAKES_AT_ONCE}")
    if done["full"] > HANDSHAKES_AT_ONCE:
        raise RuntimeError(f"{done['full']} handshakes were full, only the first of each client should be")
    return done


def bodies(path, connections):
    return lambda running, seconds: loads.tool(running, "bulk", seconds, f"path={path}", f"connections={connections}")


def half_in_clear(running, seconds, most):
    return at_half(running, seconds, most, clear=True)


def at_half(running, seconds, most, clear=False):
    """A fixed rate: half of what the closed loop before it came to."""
    rate = round(most["requests"] / most["seconds"] / 2)
    return loads.tool(running, "paced", seconds, f"connections={loads.CONNECTIONS}", f"rate={rate}", clear=clear)


def memory(running, seconds):
    """RSS when nothing was asked yet, and what an idle TLS connection adds to it."""
    machine.settle()
    before = machine.resident_kib(running.pids())
    held = loads.Idle(running, IDLE_CONNECTIONS)
    machine.settle()
    full = machine.resident_kib(running.pids())
    answered = held.end()
    if held.opened["failed"] or answered["alive"] < answered["asked"]:
        raise RuntimeError(f"idle connections were lost: {held.opened}, {answered}")
    return {"idle_mib": before / 1024, "kib_per_connection": (full - before) / held.opened["open"]}


# Answers are 1 KiB and connections are kept where nothing else is said; closed loops have 64 connections.
WORKLOADS = {
    "W1": Workload("plain HTTP/1.1", "plain", plain),
    "W2t": Workload("TLS 1.3", "tls", kept),
    # Six headers, CORS, a limit, one RS256 token with a role, one JSON line a request.
    "W2": Workload("TLS, every policy", "policy", kept),
    "W3": Workload("as W2, 10,000 ES256 tokens in turn", "policy-es", many_tokens, needs="token", warm_up=2),
    # 16 connections of 32 streams.
    "W4": Workload("as W2, HTTP/2", "policy", loads.h2load),
    # A new connection for each request, 16 at a time.
    "W5a": Workload("full handshake", "tls", full_handshakes),
    "W5b": Workload("resumed handshake", "tls", resumed_handshakes),
    "W6a": Workload("bodies of 1 MiB over TLS, CPU µs a MiB", "tls", bodies("/1m", 8), figure="cpu_us_mib"),
    "W6b": Workload("bodies of 100 MiB over TLS, CPU µs a MiB", "tls", bodies("/100m", 2), figure="cpu_us_mib"),
    "W7": Workload("KiB for an idle TLS connection", "policy-es", memory, figure="kib_per_connection"),
    "W8a": Workload("401, bad RS256 signature", "policy", bad_signature, needs="token", status=401, token="signature"),
    "W8b": Workload("429, over the limit", "limit", kept, status=429),
    "W8c": Workload("401, no token", "policy", no_token, needs="token", status=401, token=None),
    # An open loop at half the rate that the system's own closed loop came to.
    "L1": Workload("as W1 at half of the rate it carries, p99 ms", "plain", plain, after=half_in_clear, figure="p99_ms"),
    "L2": Workload("as W2 at half of the rate it carries, p99 ms", "policy", kept, after=at_half, figure="p99_ms"),
}


def seen_again(running, workload):
    """Whether one more request of the load's kind gets the status that the load is about: a limit lets some through first."""
    carried = client.fields(running.rig.keys, running.profile, workload.token)
    asked = range(3 * REFUSING if workload.profile == "limit" else 1)
    clear = workload.profile == "plain"
    return any(client.get(running, "/items", carried, clear).status == workload.status for _ in asked)
