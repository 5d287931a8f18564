"""The tables, from what was measured."""
import statistics

from . import workloads

# More than this of a core used by others, and figures are not worth keeping.
QUIET = 0.15
# Less than this of its core, and the proxy waited for the load.
BUSY = 0.95
DIGITS = {"cpu_us": 1, "cpu_us_mib": 0, "p99_ms": 2, "kib_per_connection": 1}


def spread(values, digits=1):
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def good(runs, key):
    return [run[key] for run in runs if key in run]


def ratios(ours, theirs, key):
    """The gate's figure over the peer's, in each repeat that has both."""
    return [own[key] / other[key] for own, other in zip(ours, theirs) if own.get(key) and other.get(key)]


def tables(result):
    parts = [head(result), compared(result)] if result["runs"] else [head(result)]
    if "W7" in result["runs"]:
        parts.append(memory(result))
    if result["runs"]:
        parts.append(details(result))
    if result["policies"]:
        parts.append(policies(result))
    return "\n\n".join(parts + notes(result)) + "\n"


def head(result):
    versions = ", ".join(dict.fromkeys(system["version"] for system in result["systems"].values()))
    return (f"{result['machine']}; {versions}; layout {result['layout']}; {result['seconds']} s a run, {result['repeats']} "
            "interleaved repeats: medians, ranges in brackets.")


def compared(result):
    """A row for each workload: the gate's figure, and for each peer its own with the ratio of the gate to it."""
    peers = [name for name in result["systems"] if name != "gate"]
    titles = [result["systems"][name]["title"] for name in peers]
    lines = ["| CPU µs a request, where nothing else is said | Portcullis | " + " | ".join(f"{title}; ratio" for title in titles) + " |",
             "| --- |" + " ---: |" * (1 + len(peers))]
    for name, runs in result["runs"].items():
        key = workloads.WORKLOADS[name].figure
        cells = [versus(result, name, peer, key) for peer in peers]
        own = good(runs.get("gate", []), key)
        label = f"{name} {workloads.WORKLOADS[name].title}"
        lines.append(f"| {label} | {spread(own, DIGITS[key]) if own else 'failed'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def versus(result, name, peer, key):
    ours, theirs = result["runs"][name].get("gate", []), result["runs"][name].get(peer, [])
    values = good(theirs, key)
    if not values:
        return "failed" if theirs else ""
    lacks = workloads.WORKLOADS[name].profile.startswith("policy") and result["systems"][peer]["lacks"]
    told = f"{statistics.median(values):,.{DIGITS[key]}f}" + (f" (no {', '.join(lacks)})" if lacks else "")
    pairs = ratios(ours, theirs, key)
    return f"{told}; {spread(pairs, 2)}" if pairs else told


def memory(result):
    lines = ["| memory (RSS) | idle, MiB | KiB for each of 5,000 idle TLS connections | after W3, MiB |", "| --- | ---: | ---: | ---: |"]
    for name, runs in result["runs"]["W7"].items():
        cells = [spread(good(runs, key)) if good(runs, key) else "" for key in ("idle_mib", "kib_per_connection", "loaded_mib")]
        lines.append(f"| {result['systems'][name]['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def details(result):
    """What stands behind the ratios: rates, latencies, how busy the proxy's core was, and who else was there."""
    lines = ["| workload | system | CPU µs | outside the kernel | requests or MiB/s | p50 ms | p99 ms | its cores busy | others' cores | errors |",
             "| --- | --- |" + " ---: |" * 8]
    for name, systems in result["runs"].items():
        for system, runs in systems.items():
            if name == "W7" or not good(runs, "rate"):
                continue
            large = workloads.WORKLOADS[name].figure == "cpu_us_mib"
            lines.append("| " + " | ".join([
                name, system, spread(good(runs, "cpu_us_mib" if large else "cpu_us"), 0 if large else 1),
                "" if large else spread(good(runs, "program_us")), spread(good(runs, "mib_rate" if large else "rate"), 0),
                thousandths(runs, "p50_us"), thousandths(runs, "p99_us"), f"{statistics.median(good(runs, 'busy')):.0%}",
                f"{max(good(runs, 'others')):.2f}", str(sum(good(runs, "errors")))]) + " |")
    return "\n".join(lines)


def thousandths(runs, key):
    return f"{statistics.median(good(runs, key)) / 1000:.2f}" if good(runs, key) else ""


def policies(result):
    """What each policy alone adds to the gate's own pass-through, and what all together add."""
    base = result["policies"]["pass-through"]
    lines = ["| the gate over TLS, the same requests and answers throughout | CPU µs a request | over pass-through, pair by pair |", "| --- | ---: | ---: |"]
    for name, runs in result["policies"].items():
        over = [run["cpu_us"] - bare["cpu_us"] for run, bare in zip(runs, base) if "cpu_us" in run and "cpu_us" in bare]
        added = "" if name == "pass-through" or not over else spread(over, 2)
        values = good(runs, "cpu_us")
        lines.append(f"| {name} | {spread(values, 2) if values else 'failed'} | {added} |")
    return "\n".join(lines)


def notes(result):
    """What a reader must know before believing the tables."""
    found = [f"Not measured: {name} does not do what it should: {'; '.join(faults)}" for name, faults in result["invalid"].items()]
    rows = [(name, system, run) for name, systems in result["runs"].items() for system, runs in systems.items() for run in runs]
    rows += [("policies", name, run) for name, runs in result["policies"].items() for run in runs]
    found += [f"Failed: {name} with {system}: {run['failed']}" for name, system, run in rows if "failed" in run]
    loud = [run["others"] for _, _, run in rows if run.get("others", 0) > QUIET]
    if loud:
        found.append(f"The machine was not quiet: in {len(loud)} of {len(rows)} runs others used up to {max(loud):.2f} cores; "
                     "these figures are not worth keeping.")
    steps = {"policies": result["policies"], **result["runs"]}
    starved = [f"{name} with {system} ({middle(runs, 'busy'):.0%})" for name, systems in steps.items()
               for system, runs in systems.items() if waits(name, runs)]
    if starved and result["layout"] == "split":
        found.append(f"The load did not fill the proxy's core, which makes it look dearer: {', '.join(starved)}.")
    return found


def middle(runs, key):
    return statistics.median(good(runs, key))


def waits(name, runs):
    """Whether the proxy had idle time in a load that was to leave it none."""
    return not name.startswith("L") and bool(good(runs, "busy")) and middle(runs, "busy") < BUSY
