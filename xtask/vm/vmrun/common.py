"""What all parts of vm-run use: messages, running tools, the cache."""
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys

ELF_MACHINE = {"amd64": 62, "arm64": 183}
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

quiet = False


class Failed(Exception):
    pass


def say(text):
    if not quiet:
        print("vm-run: " + text, file=sys.stderr, flush=True)


def run(argv, **kw):
    """Run a tool of this machine; raise Failed with its words if it fails."""
    kw.setdefault("env", dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive"))
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, **kw)
    out = p.stdout.decode(errors="replace")
    if p.returncode != 0:
        raise Failed("%s: exit status %d\n%s" % (shlex.join(argv), p.returncode, out.strip()))
    return out


def need(program, package):
    """The path of a program of this machine, installed with apt-get if it is missing."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path:
        return path
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed("%s is missing: install the package %s" % (program, package))
    say("installing %s" % package)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    with locked("install"):
        try:
            run(install)
        except Failed:
            run(["apt-get", "update", "-q"])
            run(install)
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        raise Failed("%s is still missing after the installation of %s" % (program, package))
    return path


def cache(*parts):
    root = os.environ.get("PANICWATCH_VM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "panicwatch-vm")
    return os.path.join(os.path.abspath(root), *parts)


class locked:
    """Only one vm-run at a time in here."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        os.makedirs(cache(), exist_ok=True)
        self.file = open(cache(".lock-" + self.name), "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()
