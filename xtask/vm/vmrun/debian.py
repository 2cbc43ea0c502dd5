"""Kernels, busybox and a small root file system from Debian's archive, kept in the cache."""
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time

from .common import Failed, cache, locked, need, run, say


def archives():
    """(main, security) archive URIs: from the environment, else from the machine's own apt sources."""
    main, security = (os.environ.get(v, "") for v in ("PANICWATCH_VM_MIRROR", "PANICWATCH_VM_SECURITY_MIRROR"))
    if not (main and security):
        try:
            out = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(SUITE) $(ORIGIN)", "Created-By: Packages"],
                                 capture_output=True, text=True).stdout
        except OSError:
            out = ""
        for uri in (line.split()[0].rstrip("/") for line in out.splitlines() if line.startswith("http")):
            if uri.endswith("debian-security"):
                security = security or uri
            elif uri.endswith("/debian"):
                main = main or uri
    return main, security


MIRROR, SECURITY = archives()
SUITES = [  # where packaged kernels come from; a suite that is gone from the mirror is no error
    (MIRROR, "bullseye"), (SECURITY, "bullseye-security"),
    (MIRROR, "bookworm"), (SECURITY, "bookworm-security"),
    (MIRROR, "trixie"), (SECURITY, "trixie-security"),
    (MIRROR, "trixie-backports"),
]
SUITES = [(uri, suite) for uri, suite in SUITES if uri]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Apt:
    """apt with sources, state and architecture of its own."""

    def __init__(self, arch):
        self.dir = cache("apt", arch)
        self.arch = arch
        for d in ("sources.d", "preferences.d", "state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self.dir, d), exist_ok=True)
        open(os.path.join(self.dir, "status"), "a").close()
        if not os.path.exists(KEYRING):
            raise Failed("%s is missing: install the package debian-archive-keyring" % KEYRING)
        with open(os.path.join(self.dir, "sources.list"), "w") as f:
            for url, suite in SUITES:
                f.write("deb [signed-by=%s] %s %s main\n" % (KEYRING, url, suite))
        self.conf = os.path.join(self.dir, "apt.conf")
        with open(self.conf, "w") as f:  # read after the machine's own apt.conf, so a proxy set there stays
            f.write("#clear APT::Architectures;\n#clear APT::Update::Post-Invoke;\n"
                    "#clear APT::Update::Post-Invoke-Success;\n#clear APT::Default-Release;\n")
            for key, value in (
                    ("APT::Architecture", arch), ("APT::Architectures::", arch),
                    ("APT::Sandbox::User", "root"), ("Acquire::Languages", "none"),
                    ("Acquire::Retries", "3"), ("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false"),
                    ("Dir::Etc::sourcelist", self.dir + "/sources.list"),
                    ("Dir::Etc::sourceparts", self.dir + "/sources.d"),
                    ("Dir::Etc::preferences", self.dir + "/preferences"),
                    ("Dir::Etc::preferencesparts", self.dir + "/preferences.d"),
                    ("Dir::State", self.dir + "/state"), ("Dir::State::status", self.dir + "/status"),
                    ("Dir::Cache", self.dir + "/cache")):
                f.write('%s "%s";\n' % (key, value))

    def update(self, max_age=3600):
        stamp = os.path.join(self.dir, "updated")
        if os.path.exists(stamp) and time.time() - os.path.getmtime(stamp) < max_age:
            return
        say("reading Debian's package lists for %s" % self.arch)
        try:
            run(["apt-get", "-c", self.conf, "update", "-q"])
        except Failed as e:  # one suite may be gone: the others are there
            say("warning: " + "; ".join(x for x in str(e).splitlines() if x.startswith("E:")))
        with open(stamp, "w"):
            pass

    def names(self, prefix):
        return run(["apt-cache", "-c", self.conf, "pkgnames", prefix]).split()

    def fetch(self, package, into):
        """Download a package, return the path of the .deb."""
        with tempfile.TemporaryDirectory(dir=cache()) as tmp:
            run(["apt-get", "-c", self.conf, "download", "-q", package], cwd=tmp)
            (deb,) = os.listdir(tmp)
            os.makedirs(into, exist_ok=True)
            os.replace(os.path.join(tmp, deb), os.path.join(into, deb))
            return os.path.join(into, deb)


def unpack(deb, into, want):
    """Unpack the members of a .deb whose path matches the pattern."""
    p = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    found = []
    with tarfile.open(fileobj=p.stdout, mode="r|") as tar:
        for member in tar:
            if member.isfile() and re.search(want, member.name):
                path = os.path.join(into, os.path.normpath("/" + member.name).lstrip("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with tar.extractfile(member) as src, open(path, "wb") as dst:
                    shutil.copyfileobj(src, dst)
                os.chmod(path, member.mode & 0o777)
                found.append(path)
        while p.stdout.read(65536):
            pass
    if p.wait() != 0:
        raise Failed("dpkg-deb could not read %s" % deb)
    return found


def version_key(version):
    return [int(x) for x in re.findall(r"\d+", version)]


def matches(version, spec):
    return spec == "latest" or version == spec or version.startswith((spec + ".", spec + "-", spec + "+"))


def flavour_suffix(arch, flavour):
    return {"cloud": "cloud-" + arch, "rt": "rt-" + arch, "generic": arch}[flavour]


def offered(apt, suffix):
    """{version: package that holds its image} of the packaged kernels."""
    result = {}
    for prefix in ("linux-image-", "linux-binary-"):  # since 6.19 the image is in linux-binary-*
        pattern = re.compile(re.escape(prefix) + r"(\d+\.\d+\.\d+.*)-" + re.escape(suffix) + "$")
        for name in apt.names(prefix):
            m = pattern.match(name)
            if m and not m.group(1).endswith(("-cloud", "-rt")):
                result[m.group(1)] = name
    return result


def cached(suffix):
    try:
        names = os.listdir(cache("kernels", suffix))
    except FileNotFoundError:
        return []
    return [n for n in names if os.path.exists(cache("kernels", suffix, n, "vmlinuz"))]


def kernel(spec, arch, flavour, update):
    """(path of the image, version or None, its folder in the cache or None)"""
    if "/" in spec:
        if not os.path.isfile(spec):
            raise Failed("no such kernel image: %s" % spec)
        return spec, None, None
    if not re.fullmatch(r"latest|\d[\w.+~-]*", spec):
        raise Failed("not a kernel: %r (a path has a '/' in it)" % spec)
    suffix = flavour_suffix(arch, flavour)
    with locked("fetch"):
        have = [v for v in cached(suffix) if matches(v, spec)]
        if not have or update:
            apt = Apt(arch)
            apt.update(0 if update else 3600)
            offers = offered(apt, suffix)
            todo = sorted((v for v in offers if matches(v, spec)), key=version_key, reverse=True)
            if not todo and not have:
                raise Failed("no packaged kernel %s (%s); see vm-run --list" % (spec, suffix))
            error = None
            for version in todo:
                if version in have:
                    break
                try:
                    say("downloading the kernel %s (%s)" % (version, suffix))
                    fetch_kernel(apt, offers[version], version, suffix)
                    have.append(version)
                    break
                except Failed as e:  # listed but not there any more: take the one before it
                    error = e
                    say("not to be had: %s" % version)
            if not have:
                raise error
    version = max(have, key=version_key)
    folder = cache("kernels", suffix, version)
    return os.path.join(folder, "vmlinuz"), version, folder


def fetch_kernel(apt, package, version, suffix):
    folder = cache("kernels", suffix, version)
    deb = apt.fetch(package, folder)
    with tempfile.TemporaryDirectory(dir=cache()) as tmp:
        for path in unpack(deb, tmp, r"(/boot|/lib/modules/[^/]*)/(vmlinuz|config)[^/]*$"):
            name = "vmlinuz" if os.path.basename(path).startswith("vmlinuz") else "config"
            os.replace(path, os.path.join(folder, name))
        base = "linux-base-%s-%s" % (version, suffix)  # since 7.2 the configuration is in there
        if not os.path.exists(os.path.join(folder, "config")) and base in apt.names("linux-base-"):
            for path in unpack(apt.fetch(base, tmp), tmp, r"/lib/modules/[^/]*/config$"):
                os.replace(path, os.path.join(folder, "config"))
    if not os.path.exists(os.path.join(folder, "vmlinuz")):
        raise Failed("%s holds no kernel image" % package)


def modules(arch, suffix, version, folder, names):
    """The paths of the named modules and of those they need, in the order to load them."""
    need("depmod", "kmod")
    release = "%s-%s" % (version, suffix)
    tree = os.path.join(folder, "modules")
    with locked("fetch"):
        if not os.path.isdir(tree):
            apt = Apt(arch)
            debs = [os.path.join(folder, d) for d in os.listdir(folder) if d.endswith(".deb")]
            if any(os.path.basename(d).startswith("linux-binary-") for d in debs):
                apt.update()
                for prefix in ("linux-modules-", "linux-base-"):  # since 6.19 in packages of their own
                    if prefix + release in apt.names(prefix):
                        debs.append(apt.fetch(prefix + release, folder))
            tmp = tempfile.mkdtemp(dir=cache())
            try:
                for deb in debs:
                    unpack(deb, tmp, r"/lib/modules/.*(\.ko(\.\w+)?|/modules\.[^/]*)$")
                if os.path.isdir(tmp + "/usr/lib"):
                    os.rename(tmp + "/usr/lib", tmp + "/lib")
                run([need("depmod", "kmod"), "-b", tmp, release])
                os.rename(tmp, tree)
            except BaseException:
                shutil.rmtree(tmp, ignore_errors=True)
                raise
    paths = []
    for name in names:
        out = run([need("modprobe", "kmod"), "-C", "/dev/null", "-d", tree, "-S", release, "--show-depends", name])
        for line in out.splitlines():
            if line.startswith("insmod "):
                path = line.split()[1]
                if path not in paths:
                    paths.append(path)
    return paths


def busybox(arch):
    path = cache("busybox", arch)
    with locked("fetch"):
        if not os.path.exists(path):
            apt = Apt(arch)
            apt.update()
            say("downloading busybox for %s" % arch)
            with tempfile.TemporaryDirectory(dir=cache()) as tmp:
                (found,) = unpack(apt.fetch("busybox-static", tmp), tmp, r"/bin/busybox$")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(found, path)
    return path


def systemd_image(suite, packages):
    """The path of an ext4 image of a small Debian with systemd, made if it is not in the cache."""
    wanted = ["systemd", "systemd-sysv", "dbus", "kmod"] + packages
    key = hashlib.sha256(" ".join([suite] + sorted(set(wanted))).encode()).hexdigest()[:12]
    image = cache("rootfs", "%s-%s.ext4" % (suite, key))
    with locked("rootfs"):
        if os.path.exists(image):
            return image
        if os.geteuid() != 0:
            raise Failed("debootstrap needs root: run vm-run --systemd as root once")
        debootstrap, mke2fs = need("debootstrap", "debootstrap"), need("mke2fs", "e2fsprogs")
        say("making a Debian %s with systemd (once)" % suite)
        os.makedirs(os.path.dirname(image), exist_ok=True)
        tmp = tempfile.mkdtemp(dir=os.path.dirname(image))
        try:
            root = os.path.join(tmp, "root")
            run([debootstrap, "--variant=minbase", "--include=" + ",".join(wanted), suite, root, MIRROR])
            run(["sh", "-c", "rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/man/* "
                 "usr/share/locale/* && ln -sf /dev/null etc/systemd/system/serial-getty@.service && "
                 "echo vm-run >etc/hostname && : >etc/resolv.conf && "
                 "printf '127.0.0.1 localhost vm-run\\n::1 localhost\\n' >etc/hosts"], cwd=root)
            size = int(run(["du", "-sm", root]).split()[0])
            run([mke2fs, "-q", "-t", "ext4", "-d", root, "-E", "root_owner=0:0", tmp + "/image",
                 "%dM" % (size * 5 // 4 + 1024)])  # sparse: what is free costs nothing
            os.replace(tmp + "/image", image)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    return image
