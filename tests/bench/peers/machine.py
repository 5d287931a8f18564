"""Cores, processes and what /proc says about them."""
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time

HOST = "127.0.0.1"
TICK = os.sysconf("SC_CLK_TCK")
READY_SECONDS = 15


class Layout:
    """Who runs where. `split`: the proxy alone on the first core with one worker, load and origin on the second.
    `shared`: everything on both cores, the proxy with two workers."""

    def __init__(self, name):
        cores = sorted(os.sched_getaffinity(0))[:2]
        if len(cores) < 2:
            sys.exit("error: two cores are needed, one for the proxy and one for the load")
        self.name = name
        self.proxy, self.load = (cores[:1], cores[1:]) if name == "split" else (cores, cores)
        self.workers = len(self.proxy)
        os.sched_setaffinity(0, self.load)


def pinned(cores, command):
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard < 0 else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < 12000:
        sys.exit(f"error: 12000 open files are needed for the idle connections, the limit is {wanted}\nhint: ulimit -Hn 65536")


def family(root):
    """The process and all its descendants."""
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        children.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(text.split(" ", 1)[0]))
    found, ahead = [], [root]
    while ahead:
        found.append(ahead.pop())
        ahead += children.get(found[-1], [])
    return found


def stop(process):
    """Ends what was started here, with the workers that outlive it, by their ids alone."""
    if process.poll() is None:
        workers = family(process.pid)[1:]
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((HOST, 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def listening(port):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def until(what, found):
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise RuntimeError(f"{what} did not become ready in {READY_SECONDS} s")


def cpu_seconds(pids):
    """CPU of the processes: in the program, and in the kernel for it."""
    program = kernel = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        program, kernel = program + int(fields[11]), kernel + int(fields[12])
    return program / TICK, kernel / TICK


def busy_seconds():
    """CPU that anybody used, on all cores."""
    fields = [int(part) for part in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK


def own_seconds():
    """CPU of this script and of the loads that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + time.process_time()


def resident_kib(pids):
    total = 0
    for pid in pids:
        found = re.search(r"^Rss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        total += int(found.group(1))
    return total


def settle():
    """Time for a process to end what it still does after a start or a load."""
    time.sleep(1)


def first_line(*command):
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    except OSError as error:
        return str(error)
    return next((line.strip() for line in run.stdout.splitlines() if line.strip()), "?")


def describe():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{model.group(1) if model else os.uname().machine}, {os.cpu_count()} cores, Linux {os.uname().release}"
