//! Counting probes at panicwatch's probe sites: what they cost without an eBPF program behind them, and how
//! often they are hit.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::FromRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::load::PANICWATCH;

/// A probe site in the program.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Name of the event that panicwatch records at the site.
    pub(crate) name: String,
    /// Offset in the file.
    offset: u64,
}

/// Returns panicwatch's emulated probe sites in `program`; the probe on process exit is not among them.
pub(crate) fn planned(program: &Path) -> Vec<Site> {
    let output = Command::new(PANICWATCH)
        .args(["inspect", "--format", "json"])
        .arg(program)
        .output()
        .expect("panicwatch starts");
    let told: Value = serde_json::from_slice(&output.stdout).expect("a document");
    let placed = told["probes"].as_array().expect("probes").iter().filter(|p| p["price"] == "emulated");
    placed
        .map(|probe| Site {
            name: probe["name"].as_str().expect("a name").to_owned(),
            offset: probe["file_offset"].as_u64().expect("an offset"),
        })
        .collect()
}

/// Counting probes, one per CPU and site; dropping the value detaches them.
pub(crate) struct Counters(Vec<File>);

impl Counters {
    /// Attaches the probes, for every process.
    pub(crate) fn place(program: &Path, sites: &[Site]) -> io::Result<Counters> {
        let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
        let kind = kind.trim().parse().map_err(io::Error::other)?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        let cpus = std::thread::available_parallelism()?.get();
        let places = sites.iter().flat_map(|site| (0..cpus).map(move |cpu| (site.offset, cpu)));
        places.map(|(offset, cpu)| open(kind, &path, offset, cpu)).collect::<io::Result<_>>().map(Counters)
    }

    /// Returns the sum of all hits.
    pub(crate) fn hits(&self) -> u64 {
        let one = |mut file: &File| {
            let mut count = [0; 8];
            file.read_exact(&mut count).expect("a counter");
            u64::from_ne_bytes(count)
        };
        self.0.iter().map(one).sum()
    }
}

/// Calls perf_event_open(2) with the first version of `perf_event_attr` that has `config2` (72 bytes).
fn open(kind: u32, path: &CString, offset: u64, cpu: usize) -> io::Result<File> {
    const BYTES: u64 = 72;
    let mut attr = [0_u64; BYTES as usize / 8];
    attr[0] = u64::from(kind) | BYTES << 32;
    attr[7] = path.as_ptr() as u64; // config1: the path
    attr[8] = offset; // config2
    // SAFETY: the kernel reads as many bytes as attr has, and the path, which ends with a zero; both outlive
    // the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, cpu as i32, -1, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that this function owns.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}
