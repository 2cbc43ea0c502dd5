//! Memory mappings of a process: parses the text of /proc/PID/maps and computes the load bias from it.
//!
//! Pure: the caller reads the file. Knows no symbols. Format:
//! <https://www.kernel.org/doc/html/v6.12/filesystems/proc.html>, and show_map_vma of
//! <https://github.com/torvalds/linux/blob/v6.12/fs/proc/task_mmu.c>

use crate::go::gobin::{GoBinary, LoadSegment};

/// Most mappings kept; more than vm.max_map_count allows by default.
const MAX_MAPPINGS: usize = 1 << 20;

/// One line of /proc/PID/maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// First address of the mapping.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// File offset of `start`, in bytes.
    pub offset: u64,
    /// Permissions, such as "r-xp".
    pub perms: String,
    /// Major and minor number of the file's device, as the file system itself has them; stat(2) can return
    /// others (btrfs, overlayfs).
    pub dev: (u32, u32),
    /// Inode number of the file; 0 for memory without a file.
    pub inode: u64,
    /// Path as the kernel writes it: newlines as `\012`, " (deleted)" after an unlinked file, `[heap]` and
    /// the like for memory that is no file. Empty for anonymous memory.
    pub path: String,
}

impl Mapping {
    /// Reports whether the mapping is executable.
    pub fn is_executable(&self) -> bool {
        self.perms.as_bytes().get(2) == Some(&b'x')
    }

    /// Reports whether the mapping is backed by a file.
    pub fn is_file(&self) -> bool {
        self.inode != 0
    }
}

/// Returns the mappings in `text`, in the same order; malformed lines are skipped.
pub fn parse(text: &str) -> Vec<Mapping> {
    text.split('\n').filter_map(line).take(MAX_MAPPINGS).collect()
}

/// Parses one line: `7f00-7f10 r-xp 00001000 fe:01 1234   /usr/bin/x y`
fn line(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = behind;
        word
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = word().split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let perms = word().to_owned();
    let offset = hex(word())?;
    let (major, minor) = word().split_once(':')?;
    let dev = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = word().parse().ok()?;
    // The kernel pads the path with blanks on the left; the path itself never begins with a blank.
    let path = rest.trim_start_matches(' ').to_owned();
    (start < end && perms.len() == 4).then_some(Mapping { start, end, offset, perms, dev, inode, path })
}

/// Identity of a file to look up among the mappings of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedFile {
    /// Target of /proc/PID/exe as readlink(2) returns it, that is with " (deleted)" after an unlinked file.
    pub path: String,
    /// Device numbers by stat(2); compared, with `inode`, if no mapping has the path.
    pub dev: (u32, u32),
    /// Inode number by stat(2), on `dev`.
    pub inode: u64,
}

impl MappedFile {
    /// Reports whether the path of `mapping` is that of this file.
    fn has_path_of(&self, mapping: &Mapping) -> bool {
        mapping.is_file() && mapping.path == self.path.replace('\n', "\\012")
    }

    /// Reports whether the device and inode of `mapping` are those of this file.
    fn has_inode_of(&self, mapping: &Mapping) -> bool {
        mapping.is_file() && (mapping.dev, mapping.inode) == (self.dev, self.inode)
    }

    /// Returns the mappings of this file: by path, else by inode. On overlayfs the two disagree and the path
    /// is right.
    pub fn mappings<'a>(&self, maps: &'a [Mapping]) -> Vec<&'a Mapping> {
        let by_path: Vec<_> = maps.iter().filter(|m| self.has_path_of(m)).collect();
        if !by_path.is_empty() {
            return by_path;
        }
        maps.iter().filter(|m| self.has_inode_of(m)).collect()
    }
}

/// Load bias of `bin`: run-time address minus link-time address; 0 for a binary that is not position
/// independent. `None` if the process does not map the binary, or not as an ELF loader does.
pub fn load_bias(bin: &GoBinary, maps: &[Mapping], file: &MappedFile) -> Option<u64> {
    let segments: Vec<_> = bin.load_segments().collect();
    let bias = bias(&segments, &file.mappings(maps))?;
    (bin.is_pie() || bias == 0).then_some(bias)
}

/// Compares code segments first: two neighbouring segments may share a page of the file, but only one of them
/// is code.
fn bias(segments: &[LoadSegment], mapped: &[&Mapping]) -> Option<u64> {
    [true, false].into_iter().find_map(|code| {
        let segments = segments.iter().filter(|s| s.executable == code);
        let mapped = mapped.iter().filter(|m| m.is_executable() == code);
        mapped.flat_map(|m| segments.clone().map(move |s| (s, m))).find_map(|(s, m)| bias_by(s, m))
    })
}

/// Returns the load bias according to one mapping; `None` if `mapping` does not overlap `segment`.
fn bias_by(segment: &LoadSegment, mapping: &Mapping) -> Option<u64> {
    let file_end = mapping.offset.saturating_add(mapping.end - mapping.start);
    let meets = mapping.offset < segment.file_offset.saturating_add(segment.file_size)
        && segment.file_offset < file_end;
    // Segments are mapped in whole pages; address minus file offset is the same in all of them.
    let link_start = segment.address.wrapping_sub(segment.file_offset).wrapping_add(mapping.offset);
    meets.then(|| mapping.start.wrapping_sub(link_start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
00400000-004a5000 r-xp 00000000 fe:01 1311                               /tmp/a b (deleted)
004a5000-00580000 r--p 000a5000 fe:01 1311                               /tmp/a b (deleted)
c000000000-c000400000 rw-p 00000000 00:00 0 
7ffff7dd0000-7ffff7dd4000 r--p 00000000 00:00 0                          [vvar]
7f0000000000-7f0000001000 r-xp 0000f000 103:0a 18446744073709551615 /x\\012y
";

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let maps = parse(TEXT);
        assert_eq!(maps.len(), 5);
        let first = &maps[0];
        assert_eq!((first.start, first.end, first.offset), (0x40_0000, 0x4a_5000, 0));
        assert_eq!((first.dev, first.inode), ((0xfe, 1), 1311));
        assert_eq!(first.path, "/tmp/a b (deleted)");
        assert!(first.is_executable() && first.is_file() && !maps[1].is_executable());
        assert_eq!((maps[2].path.as_str(), maps[2].is_file()), ("", false));
        assert_eq!(maps[3].path, "[vvar]");
        assert_eq!((maps[4].dev, maps[4].inode), ((0x103, 0xa), u64::MAX));
    }

    #[test]
    fn other_lines_are_left_out() {
        for odd in [
            "",
            "x",
            "1-2",
            "2-1 r-xp 0 0:0 0",
            "1-2 rxp 0 0:0 0",
            "1-2 r-xp g 0:0 0",
            "1-2 r-xp 0 00 0",
            "1-2 r-xp 0 0:0 x /p",
            "-2 r-xp 0 0:0 0",
            "1-2 r-xp 0 0:0 99999999999999999999 /p",
        ] {
            assert_eq!(parse(odd), [], "{odd:?}");
        }
        assert_eq!(parse("1-2 r-xp 0 0:0 0").len(), 1);
    }

    #[test]
    fn a_file_is_found_by_its_path_then_by_its_inode() {
        let maps = parse(TEXT);
        let file = |path: &str, inode| MappedFile { path: path.to_owned(), dev: (0xfe, 1), inode };
        assert_eq!(file("/tmp/a b (deleted)", 7).mappings(&maps).len(), 2, "overlayfs has other inodes");
        assert_eq!(file("/other", 1311).mappings(&maps).len(), 2);
        assert_eq!(file("/tmp/a b", 7).mappings(&maps).len(), 0, "the new file of that name");
        assert_eq!(file("/x\ny", 7).mappings(&maps).len(), 1);
        assert_eq!(file("", 0).mappings(&maps).len(), 0, "memory without a file");
    }

    #[test]
    fn the_bias_is_the_same_by_every_mapping() {
        let segment = |address, file_offset, file_size, executable| LoadSegment {
            address,
            file_offset,
            file_size,
            executable,
        };
        // As lld lays them out: addresses and offsets are not page-aligned, and neighbours share a page of
        // the file.
        let segments = [
            segment(0x0, 0x0, 0x1234, false),
            segment(0x2234, 0x1234, 0x8000, true),
            segment(0xb234, 0x9234, 0x400, false),
        ];
        let base = 0x5555_5555_4000;
        let text = format!(
            "{:x}-{:x} r--p 0 0:1 9 /f\n{:x}-{:x} r-xp 1000 0:1 9 /f\n{:x}-{:x} rw-p 9000 0:1 9 /f\n",
            base,
            base + 0x2000,
            base + 0x2000,
            base + 0xb000,
            base + 0xb000,
            base + 0xc000
        );
        let maps = parse(&text);
        assert_eq!(maps.len(), 3);
        assert_eq!(bias(&segments, &maps.iter().collect::<Vec<_>>()), Some(base));
        assert_eq!(bias(&segments, &[&maps[1]]), Some(base), "code alone");
        assert_eq!(bias(&segments, &[&maps[0]]), Some(base), "code moved elsewhere");
        let split = Mapping { start: base + 0x5000, offset: 0x4000, ..maps[1].clone() };
        assert_eq!(bias(&segments, &[&split]), Some(base), "a mapping that was split");
        let foreign = Mapping { offset: 0x100_0000, ..maps[1].clone() };
        assert_eq!(bias(&segments, &[&foreign]), None);
        assert_eq!(bias(&segments, &[]), None);
    }
}
