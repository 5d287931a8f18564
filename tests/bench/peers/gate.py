"""The gate itself."""
from . import machine
from .system import System


class Gate(System):
    name, title, template = "gate", "Portcullis", "gate.toml"

    def command(self, words):
        return [self.program, "run", "-c", self.configuration(words)]

    def version(self):
        return machine.first_line(self.program, "--version")
