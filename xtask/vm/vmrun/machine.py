"""QEMU: its command line, and following the guest's console."""
import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time

from .common import HOST_ARCH, need, say

QEMU = {"amd64": ("qemu-system-x86_64", "qemu-system-x86"),
        "arm64": ("qemu-system-aarch64", "qemu-system-arm")}
CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


def kvm_usable(arch):
    """Can KVM run an ordinary kernel here? /dev/kvm alone does not tell: without the processor's own
    support (a paravirtual host, say) it exists, but runs only kernels made for it."""
    if arch != HOST_ARCH or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    if arch == "amd64":
        with open("/proc/cpuinfo") as f:
            return bool(re.search(r"^flags\s*:.*\b(vmx|svm)\b", f.read(), re.M))
    return True


def qemu_argv(opt, accel, image, initrd, memory, drives):
    argv = [need(*QEMU[opt.arch])]
    cpu = "host" if accel == "kvm" else "max"
    if opt.arch == "arm64":
        if accel == "tcg":
            cpu = "max,pauth-impdef=on"
        argv += ["-machine", "virt,gic-version=max" if accel == "tcg" else "virt"]
    else:
        argv += ["-machine", "q35"]
    # x86 kernels patch their own code while the other CPUs run it (int3, write, sync). Emulated CPUs
    # in threads of their own lose that race now and then ("Oops: int3" in 2 of 80 boots); taking
    # turns in one thread (0 of 230) they cannot, and it costs a tenth of the time.
    tcg = "tcg,thread=single" if opt.arch == "amd64" else "tcg,thread=multi"
    argv += ["-accel", "kvm" if accel == "kvm" else tcg, "-cpu", cpu,
             "-smp", str(opt.cpus), "-m", str(memory), "-nodefaults", "-no-user-config",
             "-display", "none", "-no-reboot",
             "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
             "-kernel", image, "-initrd", initrd]
    for name, path, throw_away in drives:
        argv += ["-drive", "if=none,id=%s,format=raw,cache=unsafe,snapshot=%s,file=%s"
                 % (name, "on" if throw_away else "off", path.replace(",", ",,")),
                 "-device", "nvme,drive=%s,serial=%s" % (name, name)]
    # an oops ends the guest at once (-no-reboot), with its text on the console
    append = ["console=" + CONSOLE[opt.arch], "quiet", "panic=-1", "oops=panic", "nowatchdog",
              "random.trust_cpu=on", "rdinit=/init"]
    if opt.systemd:
        append += ["systemd.show_status=false", "systemd.log_target=journal", "systemd.getty_auto=no"]
    argv += ["-append", " ".join(append + ([opt.append] if opt.append else []))]
    return argv


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Guest:
    """A running guest: follows its console."""

    def __init__(self, argv, mark, opt):
        self.mark, self.opt = mark.encode(), opt
        self.buffer, self.console = b"", bytearray()
        self.state = "boot"   # boot, run, log, done
        self.status = self.warned = None
        self.log = b""
        self.began = time.monotonic()
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, preexec_fn=die_with_parent)

    def output(self, data):
        if self.state == "run":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif self.state == "log":
            self.log += data

    def feed(self, data):
        self.console += data
        self.buffer += data
        while self.state != "done":
            at = self.buffer.find(self.mark)
            if at < 0:  # hold back what may be the beginning of a mark
                keep = next((n for n in range(min(len(self.mark) - 1, len(self.buffer)), 0, -1)
                             if self.mark.startswith(self.buffer[-n:])), 0)
                self.output(self.buffer[:len(self.buffer) - keep])
                self.buffer = self.buffer[len(self.buffer) - keep:]
                return
            end = self.buffer.find(b"\n", at)
            if end < 0:
                return
            self.output(self.buffer[:at])
            words = self.buffer[at + len(self.mark):end].decode(errors="replace").split()
            self.buffer = self.buffer[end + 1:]
            if words[:1] == ["start"] and self.state == "boot":
                self.state = "run"
                say("Linux %s is up after %.1f s (%s)" % (words[1], time.monotonic() - self.began, self.opt.used_accel))
            elif words[:1] == ["log"]:
                self.state = "log"
            elif words[:1] == ["exit"] and len(words) == 3 and words[1].isdigit():
                self.status, self.warned, self.state = int(words[1]), words[2] != "0", "done"

    def follow(self, deadline, boot_deadline):
        """True: ended by itself; False: out of time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while self.state != "done":
                until = min(deadline, boot_deadline) if self.state == "boot" else deadline
                left = until - time.monotonic()
                if left <= 0:
                    return False
                if selector.select(left):
                    data = os.read(self.process.stdout.fileno(), 65536)
                    if not data:
                        return True
                    self.feed(data)
        return True

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()

    def last_words(self):
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace").strip()
        tail = self.console.decode(errors="replace").replace("\r", "").splitlines()[-40:]
        return "\n".join(([text] if text else []) + ["| " + x for x in tail])
