"""The guest's first file system: a cpio archive with the files, their libraries and the start scripts."""
import os
import re
import shlex
import shutil
import stat
import struct
import subprocess

from .common import ELF_MACHINE, HOST_ARCH, Failed, need, say
from .debian import busybox


def script(name):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest", name)) as f:
        return f.read()


class Cpio:
    """An initramfs in the making."""

    def __init__(self, file):
        self.file, self.ino, self.dirs, self.merged = file, 0, set(), {}
        for d in ("dev", "proc", "sys", "tmp", "run", "root", "etc", "mnt", "out", "test", "usr", "var"):
            self.dir("/" + d)
        for d in ("bin", "sbin", "lib", "lib64"):
            self.dir("/usr/" + d)
            self.symlink("/" + d, "usr/" + d)
            self.merged["/" + d] = "/usr/" + d
        self.entry("/dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))

    def entry(self, path, mode, data=b"", source=None, rdev=(0, 0)):
        size = os.fstat(source.fileno()).st_size if source else len(data)
        if size >= 1 << 32:
            raise Failed("%s is too large for the guest" % path)
        self.ino += 1
        name = path.lstrip("/").encode() + b"\0"
        head = (self.ino, mode, 0, 0, 1, 0, size, 0, 0, rdev[0], rdev[1], len(name), 0)
        self.file.write(b"070701" + b"".join(b"%08x" % x for x in head) + name)
        self.pad()
        if source:
            shutil.copyfileobj(source, self.file, 1 << 20)
        else:
            self.file.write(data)
        self.pad()

    def pad(self):
        self.file.write(b"\0" * (-self.file.tell() % 4))

    def place(self, path):
        """The path with merged /usr, its parents made."""
        path = os.path.normpath(path)
        for old, new in self.merged.items():
            if path == old or path.startswith(old + "/"):
                path = new + path[len(old):]
        if os.path.dirname(path) != "/":
            self.dir(os.path.dirname(path))
        return path

    def dir(self, path, mode=0o755):
        path = self.place(path)
        if path != "/" and path not in self.dirs:
            self.dirs.add(path)
            self.entry(path, stat.S_IFDIR | (0o1777 if path == "/tmp" else mode))

    def symlink(self, path, target):
        self.entry(self.place(path), stat.S_IFLNK | 0o777, target.encode())

    def text(self, path, text, mode=0o644):
        self.entry(self.place(path), stat.S_IFREG | mode, text.encode())

    def copy(self, path, source):
        with open(source, "rb") as f:
            self.entry(self.place(path), stat.S_IFREG | (os.fstat(f.fileno()).st_mode & 0o7777), source=f)

    def end(self):
        self.entry("TRAILER!!!", 0)
        self.file.write(b"\0" * (-self.file.tell() % 512))


def elf(path):
    """(machine, is dynamically linked), or None if it is no 64-bit ELF program."""
    with open(path, "rb") as f:
        head = f.read(64)
        if len(head) < 64 or head[:5] != b"\x7fELF\x02" or head[5] != 1:
            return None
        kind, machine = struct.unpack_from("<HH", head, 16)
        phoff, = struct.unpack_from("<Q", head, 32)
        phentsize, phnum = struct.unpack_from("<HH", head, 54)
        f.seek(phoff)
        table = f.read(phentsize * phnum)
        kinds = [struct.unpack_from("<I", table, i * phentsize)[0] for i in range(len(table) // phentsize)]
        return machine, kind in (2, 3) and 2 in kinds  # an executable or shared object with PT_DYNAMIC


class Payload:
    """The user's files, and the libraries they need."""

    def __init__(self, cpio, arch, prefix):
        self.cpio, self.arch, self.prefix, self.libs = cpio, arch, prefix, {}

    def add(self, spec):
        source, colon, target = spec.partition(":")
        if not os.path.exists(source) and os.path.exists(spec):
            source, target = spec, ""
        if not os.path.exists(source):
            raise Failed("no such file: %s" % source)
        if target and not target.startswith("/"):
            raise Failed("%s: the path in the guest must be absolute" % spec)
        name = os.path.basename(os.path.abspath(source))
        if not target:
            target = "/test/" + name
        elif target.endswith("/") and target != "/" or (target == "/" and not os.path.isdir(source)):
            target = os.path.join(target, name)
        self.put(self.prefix + target, os.path.realpath(source))

    def put(self, target, source):
        mode = os.lstat(source).st_mode
        if stat.S_ISLNK(mode):
            self.cpio.symlink(target, os.readlink(source))
        elif stat.S_ISDIR(mode):
            self.cpio.dir(target, mode & 0o7777)
            for name in sorted(os.listdir(source)):
                self.put(target.rstrip("/") + "/" + name, os.path.join(source, name))
        elif stat.S_ISREG(mode):
            self.cpio.copy(target, source)
            if mode & 0o111:
                self.need_libs(source)
        # sockets, pipes and devices stay out

    def need_libs(self, source):
        found = elf(source)
        if not found:
            return
        machine, dynamic = found
        if machine not in (ELF_MACHINE[self.arch], 247):  # 247: a BPF object
            say("warning: %s is not for %s" % (source, self.arch))
        elif dynamic and self.arch == HOST_ARCH and shutil.which("ldd"):
            p = subprocess.run(["ldd", source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for line in p.stdout.decode(errors="replace").splitlines():
                m = re.match(r"\s*(?:\S+ => )?(/\S+) \(0x", line)
                if m:
                    self.libs[m.group(1)] = os.path.realpath(m.group(1))

    def add_libs(self, prefix):
        for path, source in sorted(self.libs.items()):
            self.cpio.copy(prefix + path, source)


def initramfs(path, opt, mark, disks, module_paths, config):
    with open(path, "wb") as f:
        cpio = Cpio(f)
        cpio.dir("/.vm-run")
        if config and os.path.exists(config[1]):
            cpio.copy(("/.vm-run/root" if opt.systemd else "") + "/boot/config-" + config[0], config[1])
        cpio.copy("/bin/busybox", busybox(opt.arch))
        cpio.symlink("/bin/sh", "busybox")
        cpio.text("/init", script("init"), 0o755)
        cpio.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        cpio.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
        cpio.text("/etc/hosts", "127.0.0.1 localhost vm-run\n::1 localhost\n")
        cpio.text("/.vm-run/run", script("run"), 0o755)
        cpio.text("/.vm-run/mark", mark + "\n")
        cpio.text("/.vm-run/disks", "".join(d + "\n" for d in disks))
        cpio.text("/.vm-run/unit", script("vm-run.service"))
        command = opt.command[0] if len(opt.command) == 1 else shlex.join(opt.command)
        cpio.text("/.vm-run/command", command + "\n")
        env = {"PATH": "/test:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "TERM": os.environ.get("TERM", "dumb") if opt.interactive else "dumb"}
        for pair in opt.env:
            name, equals, value = pair.partition("=")
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or not equals:
                raise Failed("--env %s: not NAME=VALUE" % pair)
            env[name] = value
        text = "".join("export %s=%s\n" % (k, shlex.quote(v)) for k, v in env.items())
        cpio.text("/.vm-run/environment", text + "VM_RUN_DMESG=%s\n" % ("1" if opt.dmesg else ""))
        if opt.interactive:
            cpio.text("/.vm-run/interactive", "")
        if opt.systemd:
            cpio.text("/.vm-run/systemd", "")
            cpio.dir("/.vm-run/root")
        cpio.dir("/.vm-run/libs")
        payload = Payload(cpio, opt.arch, "/.vm-run/root" if opt.systemd else "")
        for spec in opt.files:
            payload.add(spec)
        payload.add_libs("/.vm-run/libs" if opt.systemd else "")
        names = []
        for number, module in enumerate(module_paths):
            base = os.path.basename(module)
            names.append("/.vm-run/ko/%03d-%s" % (number, re.sub(r"\.(xz|gz|zst)$", "", base)))
            if base.endswith(".ko"):
                cpio.copy(names[-1], module)
            else:
                tool = {"xz": "xz", "gz": "gzip", "zst": "zstd"}[base.rsplit(".", 1)[1]]
                data = subprocess.run([need(tool, tool + "-utils" if tool == "xz" else tool), "-dc", module],
                                      stdout=subprocess.PIPE, check=True).stdout
                cpio.entry(cpio.place(names[-1]), stat.S_IFREG | 0o644, data)
        cpio.text("/.vm-run/modules", "".join(n + "\n" for n in names))
        cpio.end()
