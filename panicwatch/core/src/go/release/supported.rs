//! The supported Go releases. Also compiled into `xtask`, which depends on no crate of panicwatch, so it uses
//! nothing else.

/// The patch release of each supported minor release that the layout table was extracted from and the tests
/// run, in the order of the table's columns. The first is a package of Debian, the others are fetched.
///
/// Go 1.20 is not supported: no build of it was examined, and neither neighbor's structs are certain to match
/// its own.
pub const RELEASES: [&str; 8] =
    ["1.19.8", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];
