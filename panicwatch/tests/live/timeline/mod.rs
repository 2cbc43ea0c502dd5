//! The timeline of the last milliseconds, compared with Go's own execution tracer of the same run and with
//! what programs print about themselves.

mod budget;
mod functions;
mod last_ran;
mod losses;
mod sources;
mod told;
mod tracer;

use std::path::PathBuf;

use anyhow::Result;
use libtest_mimic::Trial;
use panicwatch::incident::Incident;

use crate::{
    fixtures,
    gobuild::DEFAULT,
    ledger::{End, Verdict, cell},
    need,
    toolchain::{self, Toolchain},
};
use told::Line;

/// The fixture `timeline`, built with one toolchain.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) toolchain: Toolchain,
}

/// Releases for tests that do not depend on the release: the oldest, a middle one, the newest.
const SOME: [&str; 3] = ["1.19", "1.23", "1.27"];

/// Returns every test of the group.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        let some = need::full() || SOME.contains(&version.as_str());
        let mut add = |name: String, test: fn(&Built, &str) -> Verdict, argument: &'static str| {
            let toolchain = toolchain.clone();
            trials.push(cell("timeline", &version, &name, move || judge(test, argument, toolchain.clone())));
        };
        add("last to run".to_owned(), last_ran::is_the_one_executed_last, "channel");
        for scenario in tracer::SCENARIOS {
            add(format!("{scenario} as the tracer"), tracer::agrees, scenario);
            if some {
                add(format!("{scenario} as the tracer, default level"), tracer::agrees_by_default, scenario);
            }
        }
        if some {
            for ending in losses::ENDINGS {
                add(format!("ends by {ending}"), losses::outlives, ending);
            }
            add("flood".to_owned(), losses::flood, "16384");
            add("functions by name".to_owned(), functions::entries, "main.spin");
            add("budget kept".to_owned(), budget::sheds, "3");
            add("idle beside neighbours".to_owned(), budget::idle_beside_neighbours, "60");
            add("level kept".to_owned(), budget::honours_a_level, "3");
            add("flood, small ring".to_owned(), losses::small_ring, "64");
        }
        if version == "1.27" || need::full() {
            for way in sources::WAYS_TO_SAMPLE {
                add(format!("samples by {way}"), sources::samples, way);
            }
            add("sends of a busy server".to_owned(), sources::sends, "20");
            for source in sources::SOURCES {
                add(format!("without {}", source.name), sources::without, source.name);
            }
        }
    }
    trials
}

fn judge(test: fn(&Built, &str) -> Verdict, argument: &str, toolchain: Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    match fixtures::build("timeline", DEFAULT, &toolchain)? {
        Ok((toolchain, path)) => test(&Built { path, toolchain }, argument),
        Err(reason) => Ok(End::Skipped(reason)),
    }
}

/// Returns the timeline of each incident after checking that it is sound.
fn lines(incidents: &[Incident]) -> Result<Vec<Line>> {
    incidents
        .iter()
        .map(|incident| {
            let line = Line::of(incident)?;
            line.sound().map(|()| line)
        })
        .collect()
}
