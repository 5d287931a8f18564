"""What a system under test has to say about itself, and how one is started.

A configuration is a template: `{{NAME}}` is replaced, lines between `#:if NAME` and `#:end` stay only where NAME is true
(`#:else` is understood). Names: FOLDER KEYS PLAIN TLS ORIGIN (ports) WORKERS ALG RATE, and the policies HEADERS COOKIES
CORS LIMIT TOKEN LOG; POLICY is all of them.
"""
import pathlib
import re
import shutil
import subprocess

from . import client, machine

HERE = pathlib.Path(__file__).resolve().parent
POLICIES = ("HEADERS", "COOKIES", "CORS", "LIMIT", "TOKEN", "LOG")
NEVER_REACHED = 1_000_000
REFUSING = 10


class Profile:
    """What is asked of the system: which policies, which kind of token, how many requests a second. `carried` says for
    which policies a request brings its token and its origin, where that is not these policies."""

    def __init__(self, policies=(), algorithm="RS256", rate=NEVER_REACHED, carried=None):
        self.policies, self.algorithm, self.rate = tuple(policies), algorithm, rate
        self.carried = self.policies if carried is None else tuple(carried)

    def words(self):
        return {"ALG": self.algorithm, "RATE": self.rate, "POLICY": self.policies == POLICIES,
                **{name: name in self.policies for name in POLICIES}}


PROFILES = {
    "plain": Profile(),
    "tls": Profile(),
    "policy": Profile(POLICIES),
    "policy-es": Profile(POLICIES, algorithm="ES256"),
    "limit": Profile(POLICIES, rate=REFUSING),
}


class System:
    """One proxy. What it cannot do stands in `lacks` and is said beside its figures."""

    name = title = template = package = ""
    lacks = ()
    flags = {}
    # Only these, where the variant makes no difference to the others.
    workloads = None
    stdout_is_log = False

    def __init__(self, program):
        self.program = program

    def command(self, words):
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def configuration(self, words):
        text = filled((HERE / self.template).read_text(), words)
        path = pathlib.Path(words["FOLDER"]) / self.template
        path.write_text(text)
        return str(path)


def find(*names):
    """A program of the PATH or of Debian's folder for services."""
    return next(filter(None, (shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in names)), None)


def filled(text, words):
    lines, kept = [], []
    for line in text.splitlines():
        mark = line.strip()
        if mark.startswith("#:if "):
            kept.append(bool(words.get(mark.removeprefix("#:if "))))
        elif mark == "#:else":
            kept[-1] = not kept[-1]
        elif mark == "#:end":
            kept.pop()
        elif all(kept):
            lines.append(re.sub(r"\{\{(\w+)\}\}", lambda found: str(words[found.group(1)]), line))
    return "\n".join(lines) + "\n"


class Running:
    """A system that was started and answers."""

    def __init__(self, system, profile, rig):
        self.system, self.profile, self.rig = system, profile, rig
        self.plain, self.tls = machine.free_ports(2)
        folder = rig.folder / system.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.log = folder / "access.log"
        words = {"FOLDER": folder, "KEYS": rig.keys, "PLAIN": self.plain, "TLS": self.tls, "ORIGIN": rig.origin_port,
                 "WORKERS": rig.layout.workers, **profile.words(), **system.flags}
        with open(self.log if system.stdout_is_log else folder / "out", "ab") as out, open(folder / "err", "ab") as err:
            command = machine.pinned(rig.layout.proxy, system.command(words))
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder)
        try:
            machine.until(system.name, self.ready)
        except BaseException as error:
            self.stop()
            if not isinstance(error, RuntimeError):
                raise
            said = (folder / "err").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{error}\n{said}") from None

    def ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.system.name} ended with {self.process.returncode}")
        if not machine.listening(self.plain) or not machine.listening(self.tls):
            return False
        return client.get(self, "/items", client.fields(self.rig.keys, self.profile)).status == 200

    def pids(self):
        return machine.family(self.process.pid)

    def stop(self):
        machine.stop(self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
