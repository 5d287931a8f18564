"""HAProxy as Debian has it: the issuer's key from a PEM file, every token verified anew, the access log is its stdout."""
from . import machine
from .system import System


class Haproxy(System):
    name, title, template = "haproxy", "HAProxy", "haproxy.cfg"
    package = "Debian: haproxy"
    stdout_is_log = True

    def command(self, words):
        return [self.program, "-db", "-f", self.configuration(words)]

    def version(self):
        return "HAProxy " + machine.first_line(self.program, "-v").split()[2]
