"""One measurement: a fresh process, a warm-up, then the load with the proxy's CPU on both sides of it."""
import time

from . import machine, workloads
from .system import PROFILES, Running


def measure(rig, system, name, seconds):
    """The figures of one run."""
    workload = workloads.WORKLOADS[name]
    with Running(system, PROFILES[workload.profile], rig) as running:
        if name == "W7":
            figures = workload.load(running, seconds)
        else:
            first = workload.load(running, workload.warm_up)
            figures = accounted(running, lambda: workload.after(running, seconds, first))
            check(running, workload, figures)
    if name == "W7" and workloads.WORKLOADS["W3"].needs not in system.lacks:
        figures["loaded_mib"] = loaded(rig, system, seconds)
    return figures


def loaded(rig, system, seconds):
    """RSS after the load with many tokens, of a process that has had no other."""
    workload = workloads.WORKLOADS["W3"]
    with Running(system, PROFILES[workload.profile], rig) as running:
        workload.load(running, seconds)
        return machine.resident_kib(running.pids()) / 1024


def accounted(running, load):
    """The load's own account, with what it cost the proxy and how much of the machine others used meanwhile."""
    pids, origin = running.pids(), [running.rig.origin.pid]

    def marks():
        program, kernel = machine.cpu_seconds(pids)
        known = program + kernel + sum(machine.cpu_seconds(origin)) + machine.own_seconds()
        return program, program + kernel, known, machine.busy_seconds(), time.monotonic()

    before = marks()
    figures = load()
    program, cpu, known, busy, passed = (after - start for after, start in zip(marks(), before))
    requests = max(1, figures["requests"])
    figures.update(cpu_us=cpu * 1e6 / requests, program_us=program * 1e6 / requests, rate=requests / figures["seconds"],
                   busy=cpu / passed / len(running.rig.layout.proxy), others=max(0.0, busy - known) / passed)
    if figures.get("bytes"):
        mib = figures["bytes"] / 2**20
        figures.update(cpu_us_mib=cpu * 1e6 / mib, mib_rate=mib / figures["seconds"])
    if "p99_us" in figures:
        figures["p99_ms"] = figures["p99_us"] / 1000
    return figures


def check(running, workload, figures):
    """A run with errors, or with other answers than the ones that it is about, gives no figure."""
    refused = figures["refused"] / max(1, figures["requests"])
    wrong = refused > 0 if workload.status == 200 else refused < 0.9
    if wrong or not workloads.seen_again(running, workload) or (figures["errors"] and running.system.name == "gate"):
        raise RuntimeError(f"{figures['errors']} errors {figures.get('last_error', '')}, {refused:.1%} not 2xx; "
                           f"{workload.status} was to be got")
