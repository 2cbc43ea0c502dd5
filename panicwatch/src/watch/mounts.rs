//! Parses /proc/PID/mountinfo and selects the file systems on which the exec gate may hold execs.
//!
//! The kernel opens the file of every permission event in panicwatch's own context. On a file system served
//! by user space or the network (FUSE, NFS, CIFS, 9p) that open can block forever, and with it every exec on
//! the machine; so can a path walk through such a mount. Only file systems of a fixed list are marked, and
//! only if no other kind is on the path to them. Pure: the caller reads the file.
//! <https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>

use std::collections::HashMap;

/// File systems that the kernel serves without user space or network: from memory or from a block device.
const LOCAL: [&str; 29] = [
    "bcachefs", "btrfs", "cramfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs",
    "hfsplus", "iso9660", "jffs2", "jfs", "minix", "msdos", "nilfs2", "ntfs3", "ramfs", "reiserfs", "romfs",
    "rootfs", "squashfs", "tmpfs", "ubifs", "udf", "vfat", "xfs",
];
/// File systems that hold no programs, but that a path may cross.
const PSEUDO: [&str; 15] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
    "tracefs",
];
/// Deepest stacking of overlays that the kernel allows.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/fs.h> (FILESYSTEM_MAX_STACK_DEPTH)
const MAX_STACKED: u32 = 2;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mount {
    /// Mount ID, unique among the current mounts.
    pub(super) id: u32,
    /// Device number of its file system, "8:1".
    pub(super) device: String,
    /// Mount point, relative to the reader's root directory.
    pub(super) point: Vec<u8>,
    kind: String,
    /// Options of the file system itself (super options).
    options: String,
}

/// Returns the mounts in `text`, a mountinfo; malformed lines are skipped.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

/// Parses one line: `36 35 98:0 / /mnt rw,noatime shared:1 - ext3 /dev/root rw`
fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (id, device, point) = (left.next()?.parse().ok()?, left.nth(1)?, left.nth(1)?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
    let (device, kind, options) = (device.to_owned(), kind.to_owned(), options.to_owned());
    Some(Mount { id, device, point: unescape(point), kind, options })
}

/// Returns the mounts of `all` whose file systems the exec gate may mark. `own` means that the list is that
/// of panicwatch's own namespace. In other namespaces, the list must include the mount of the root directory,
/// and overlays are never marked: the paths of their layers may be those of yet another namespace.
pub(super) fn safe(all: &[Mount], own: bool) -> Vec<&Mount> {
    if !own && !all.iter().any(|mount| mount.point == b"/") {
        return Vec::new();
    }
    let may_be = |mount: &&Mount| own || !mount.is_overlay();
    all.iter()
        .filter(may_be)
        .filter(|mount| is_reached_safely(&mount.point, all) && is_local(mount, all, 0))
        .collect()
}

impl Mount {
    /// Returns the directories that an overlay consists of, each split at the mount point of `all` that
    /// contains it; empty for other kinds.
    pub(super) fn layers(&self, all: &[Mount]) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.is_overlay() {
            return Vec::new();
        }
        let split = |layer: Vec<u8>| {
            let above = all.iter().filter(|other| other.id != self.id && is_below(&layer, &other.point));
            let point = above.map(|other| other.point.clone()).max_by_key(Vec::len).unwrap_or_default();
            let rest = layer.get(point.len()..).unwrap_or_default();
            let rest = rest.strip_prefix(b"/").unwrap_or(rest).to_vec();
            (point, rest)
        };
        layers(&self.options).into_iter().map(split).collect()
    }

    fn is_overlay(&self) -> bool {
        self.kind == "overlay"
    }
}

/// Reports whether no mount on the way to `path`, even a shadowed one, can block a path walk.
fn is_reached_safely(path: &[u8], all: &[Mount]) -> bool {
    let on_the_way = |mount: &&Mount| is_below(path, &mount.point);
    let passes = |mount: &Mount| PSEUDO.contains(&&*mount.kind) || is_local(mount, all, 0);
    all.iter().filter(on_the_way).all(passes)
}

fn is_local(mount: &Mount, all: &[Mount], stacked: u32) -> bool {
    match &*mount.kind {
        "overlay" if stacked < MAX_STACKED => overlay_is_local(mount, all, stacked),
        kind => LOCAL.contains(&kind),
    }
}

/// Reports whether every layer is an absolute path on a local mount. Relative layers, and those whose mount
/// is not in the list, count as unsafe.
fn overlay_is_local(mount: &Mount, all: &[Mount], stacked: u32) -> bool {
    let layers = layers(&mount.options);
    let local = |layer: &Vec<u8>| {
        let holds = |other: &&Mount| other.id != mount.id && is_below(layer, &other.point);
        let mut found = all.iter().filter(holds).peekable();
        layer.starts_with(b"/")
            && found.peek().is_some()
            && found.all(|other| is_local(other, all, stacked + 1))
    };
    !layers.is_empty() && layers.iter().all(local)
}

/// Returns the directories that an overlay consists of. <https://docs.kernel.org/filesystems/overlayfs.html>
fn layers(options: &str) -> Vec<Vec<u8>> {
    let mut layers = Vec::new();
    for option in options.split(',') {
        let Some((name, value)) = option.split_once('=') else { continue };
        match name {
            "lowerdir" | "lowerdir+" | "datadir+" => {
                layers.extend(value.split(':').filter(|dir| !dir.is_empty()).map(unescape))
            }
            "upperdir" => layers.push(unescape(value)),
            _ => {}
        }
    }
    layers
}

/// Reports whether `path` is the directory `above` or below it.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    let above = above.strip_suffix(b"/").unwrap_or(above);
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Decodes the octal escapes of mountinfo: space, tab, newline, backslash and, in options, comma.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal =
            bytes.get(i + 1..i + 4).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) if bytes[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    out
}

/// Mounts that were marked before, by mount namespace: marking a mount again costs several system calls.
#[derive(Debug, Default)]
pub(super) struct Marked(HashMap<u64, Vec<Mount>>);

/// Most namespaces that are remembered; when the map is full, it is cleared and some mounts are marked again.
const MAX_NAMESPACES: usize = 256;

impl Marked {
    /// Returns the safe mounts of `all`, the current mounts of `namespace`, that were not returned before.
    pub(super) fn new_ones(&mut self, namespace: u64, all: &[Mount], own: bool) -> Vec<Mount> {
        if self.0.len() >= MAX_NAMESPACES && !self.0.contains_key(&namespace) {
            self.0.clear();
        }
        let now: Vec<Mount> = safe(all, own).into_iter().cloned().collect();
        let before = self.0.insert(namespace, now.clone()).unwrap_or_default();
        now.into_iter().filter(|mount| !before.contains(mount)).collect()
    }

    /// Forgets all mounts, after their marks were removed.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<String> {
        let all = parse(text);
        safe(&all, true).iter().map(|mount| String::from_utf8_lossy(&mount.point).into_owned()).collect()
    }

    const ROOT: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";

    #[test]
    fn lines_of_the_kernel() {
        let all = parse(
            "36 35 98:0 /mnt1 /mnt2\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue\nnonsense\n",
        );
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].id, &*all[0].device, &*all[0].point), (36, "98:0", &b"/mnt2 b"[..]));
        assert_eq!((&*all[0].kind, &*all[0].options), ("ext3", "rw,errors=continue"));
    }

    #[test]
    fn what_user_space_or_the_network_serves_is_not_marked() {
        for kind in
            ["fuse.sshfs", "fuse", "fuseblk", "nfs4", "cifs", "9p", "virtiofs", "autofs", "ceph", "made-up"]
        {
            let text = format!("{ROOT}40 27 0:50 / /srv rw - {kind} x rw\n");
            assert_eq!(points(&text), ["/"], "{kind}");
        }
    }

    #[test]
    fn nothing_below_or_over_such_a_mount_is_walked_to() {
        let below = format!("{ROOT}40 27 0:50 / /srv rw - fuse x rw\n41 40 0:51 / /srv/a rw - tmpfs x rw\n");
        assert_eq!(points(&below), ["/"]);
        // The tmpfs is shadowed by the FUSE mount: its path leads to the FUSE mount.
        let over = format!("{ROOT}40 27 0:50 / /m rw - tmpfs x rw\n41 40 0:51 / /m rw - fuse x rw\n");
        assert_eq!(points(&over), ["/"]);
        let beside = format!("{ROOT}40 27 0:50 / /srv rw - fuse x rw\n41 27 0:51 / /srv2 rw - tmpfs x rw\n");
        assert_eq!(points(&beside), ["/", "/srv2"]);
    }

    #[test]
    fn an_overlay_is_as_safe_as_its_layers() {
        let overlay = |options: &str| format!("50 27 0:60 / /o rw - overlay overlay rw,{options}\n");
        let fuse = "40 27 0:50 / /srv rw - fuse x rw\n";
        let with = |options: &str| points(&format!("{ROOT}{fuse}{}", overlay(options)));
        assert_eq!(with("lowerdir=/a:/b,upperdir=/c,workdir=/w"), ["/", "/o"]);
        assert_eq!(with("lowerdir+=/a,datadir+=/b"), ["/", "/o"]);
        assert_eq!(with("lowerdir=/a:/srv/b,upperdir=/c"), ["/"]);
        assert_eq!(with("lowerdir=/a,upperdir=/srv/c"), ["/"]);
        assert_eq!(with("lowerdir=l/A:l/B,upperdir=/c"), ["/"], "a relative layer is somewhere");
        assert_eq!(with("index=off"), ["/"], "no layer is named");
        let all = parse(&format!("{ROOT}{}", overlay("lowerdir=/a")));
        assert_eq!(safe(&all, false).len(), 1, "in another namespace its paths may mean other directories");
    }

    #[test]
    fn layers_are_split_at_their_mount() {
        let all = parse(&format!(
            "{ROOT}40 27 0:50 / /x rw - ext4 x rw\n50 27 0:60 / /x/o rw - overlay overlay rw,lowerdir=/x/a:/b,upperdir=/x\n"
        ));
        let split: Vec<_> = all[2]
            .layers(&all)
            .into_iter()
            .map(|(point, rest)| [point, rest].map(|b| String::from_utf8(b).unwrap()))
            .collect();
        assert_eq!(split, [["/x", "a"], ["/", "b"], ["/x", ""]]);
    }

    #[test]
    fn of_other_roots_the_way_must_be_known() {
        let all = parse("41 40 0:51 / /srv/a rw - tmpfs x rw\n");
        assert_eq!(safe(&all, true).len(), 1);
        assert!(safe(&all, false).is_empty());
    }

    #[test]
    fn only_new_mounts_are_marked() {
        let mut marked = Marked::default();
        let first = parse(ROOT);
        assert_eq!(marked.new_ones(1, &first, true).len(), 1);
        assert_eq!(marked.new_ones(1, &first, true).len(), 0);
        let second = parse(&format!("{ROOT}40 27 0:50 / /m rw - tmpfs x rw\n"));
        assert_eq!(marked.new_ones(1, &second, true)[0].point, b"/m");
        assert_eq!(marked.new_ones(2, &second, false).len(), 2, "another namespace");
        marked.forget();
        assert_eq!(marked.new_ones(1, &second, true).len(), 2);
    }

    #[test]
    fn mount_points_with_spaces() {
        assert_eq!(unescape("/mnt/a\\040b\\134c"), b"/mnt/a b\\c");
        assert_eq!(unescape("/x\\04"), b"/x\\04");
    }
}
