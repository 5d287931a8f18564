"""The loads: wrk for HTTP/1.1 at full speed, h2load for HTTP/2, the tool for handshakes, large bodies and a fixed rate."""
import json
import os
import re
import subprocess

from . import client, machine
from .system import HERE

CONNECTIONS = 64
# Longer than any load, so that one which hangs ends the run instead of holding it.
PATIENCE = 60


def run(running, command, seconds):
    """What the program printed. It runs on the load's core."""
    rig = running.rig
    environment = dict(os.environ, OPENSSL_CONF=str(rig.keys / "client.cnf"))
    try:
        done = subprocess.run(machine.pinned(rig.layout.load, command), capture_output=True, text=True, env=environment,
                              timeout=seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} did not end {PATIENCE} s after it should have") from None
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-600:]}")
    return done.stdout


def url(running, path, clear=False):
    return f"http://localhost:{running.plain}{path}" if clear else f"https://localhost:{running.tls}{path}"


def wrk(running, seconds, path="/items", clear=False, token="tokens", tokens=1):
    """A closed loop over kept connections, with `tokens` different tokens in turn."""
    carried = client.fields(running.rig.keys, running.profile, token)
    asked = [str(running.rig.keys / f"{running.profile.algorithm}.{token}"), str(tokens)]
    if carried.pop("Authorization", None) is None:
        asked = ["-", "1"]
    words = asked + [f"{name}: {value}" for name, value in carried.items()]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "5s", "-s", str(HERE / "load.lua"),
               url(running, path, clear), "--", *words]
    said = run(running, command, seconds)
    return json.loads(re.search(r"^JSON(\{.*\})", said, re.M).group(1))


def h2load(running, seconds, path="/items"):
    """HTTP/2: 16 connections with 32 streams each."""
    carried = client.fields(running.rig.keys, running.profile).items()
    words = [word for name, value in carried for word in ("-H", f"{name}: {value}")]
    said = run(running, ["h2load", "-t1", "-c16", "-m32", "-D", str(seconds), *words, url(running, path)], seconds)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said)
    passed = re.search(r"finished in ([\d.]+)(m?s),", said)
    if not counts or not codes or not passed or "Application protocol: h2" not in said:
        raise RuntimeError(f"h2load said something else: {said[-600:]}")
    good, *bad = map(int, codes.groups())
    return {"requests": good + sum(bad), "seconds": float(passed[1]) / (1000 if passed[2] == "ms" else 1),
            "errors": sum(map(int, counts.groups()[2:])), "refused": sum(bad)}


def tool(running, verb, seconds, *words, clear=False):
    """One of the loads of tests/bench/tools."""
    port = running.plain if clear else running.tls
    carried = client.fields(running.rig.keys, running.profile).items()
    command = [running.rig.tool, verb, f"address={machine.HOST}:{port}", f"seconds={seconds}", *words,
               *(f"field={name}: {value}" for name, value in carried), *(["tls=no"] if clear else [])]
    return json.loads(run(running, command, seconds))


class Idle:
    """Kept TLS connections that have had one request each; they are let go when the block ends."""

    def __init__(self, running, connections):
        carried = client.fields(running.rig.keys, running.profile).items()
        command = [running.rig.tool, "idle", f"address={machine.HOST}:{running.tls}", f"connections={connections}",
                   *(f"field={name}: {value}" for name, value in carried)]
        self.process = subprocess.Popen(machine.pinned(running.rig.layout.load, command), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.opened = json.loads(self.process.stdout.readline())

    def end(self):
        """How many of a sample still answer."""
        said, _ = self.process.communicate(timeout=PATIENCE)
        return json.loads(said)
