"""Starts a program with listening sockets as systemd does (sd_listen_fds(3)).

Takes one JSON instruction: `sockets` by name (`tcp`, `udp` or `unix:PATH`), `file`, in which `@NAME@` becomes the address
of that socket, `command`, and `environment`. Prints the addresses and waits for a line before the program takes over.
"""

import json
import os
import pathlib
import socket
import sys

do = json.loads(sys.argv[1])
held, addresses = [], {}
for name, kind in do["sockets"].items():
    if kind.startswith("unix:"):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.bind(kind.removeprefix("unix:"))
        addresses[name] = kind
    else:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        one.bind(("127.0.0.1", 0))
        addresses[name] = f"127.0.0.1:{one.getsockname()[1]}"
    if kind != "udp":
        one.listen(64)
    held.append(one)

file = pathlib.Path(do["file"])
text = file.read_text()
for name, address in addresses.items():
    text = text.replace(f"@{name}@", address)
file.write_text(text)
print(json.dumps(addresses), flush=True)
sys.stdin.readline()

# Away from the numbers that are to be theirs, and then there.
copies = [os.dup(one.fileno()) for one in held]
base = max([*copies, 3 + len(copies)]) + 1
copies = [os.dup2(copy, base + place) for place, copy in enumerate(copies)]
for place, copy in enumerate(copies):
    os.dup2(copy, 3 + place, inheritable=True)
environment = os.environ | {
    "LISTEN_PID": str(os.getpid()),
    "LISTEN_FDS": str(len(held)),
    "LISTEN_FDNAMES": ":".join(do["sockets"]),
}
# The copies stay behind: descriptors are not inherited unless said so.
for copy in copies:
    os.set_inheritable(copy, False)
os.execvpe(do["command"][0], do["command"], environment | do.get("environment", {}))
