"""nginx as Debian has it. Verifying tokens is not in the free edition."""
from . import machine
from .system import System


class Nginx(System):
    name, title, template = "nginx", "nginx", "nginx.conf"
    package = "Debian: nginx-light"
    lacks = ("token",)

    def command(self, words):
        return [self.program, "-e", "stderr", "-c", self.configuration(words)]

    def version(self):
        return machine.first_line(self.program, "-v").removeprefix("nginx version: ").replace("/", " ")
