//! What must hold in every incident: the process it names, the order of its times, its ID.

use panicwatch::incident::{Incident, Outcome, Panic};

use super::Differences;

/// Checks one incident of the program started with this command line.
pub(crate) fn check(incident: &Incident, command_line: &[String]) -> Vec<String> {
    let mut d = Differences::default();
    let exe = command_line.first().map(String::as_str);
    d.equal("process.exe", exe, incident.process.exe.as_deref());
    d.equal("process.args", Some(command_line), incident.process.args.as_deref());
    d.equal("process.pid known", true, incident.process.pid > 0);
    d.equal("process.build_id known", true, incident.process.build_id.is_some());
    d.equal("id is a ULID", Some(26), incident.id.is_ascii().then_some(incident.id.len()));
    let time = incident.time.len() >= 20 && incident.time.ends_with('Z') && incident.time.contains('T');
    d.equal("time is RFC 3339 UTC", true, time);
    d.equal("fingerprint known", true, !incident.fingerprint.is_empty());
    times(incident, &mut d);
    let dead = matches!(incident.outcome, Outcome::Fatal | Outcome::Exited);
    d.equal("exit known of the dead alone", dead, incident.exit.is_some());
    for missing in &incident.missing {
        d.equal("missing: what and reason", true, !missing.what.is_empty() && !missing.reason.is_empty());
    }
    d.0
}

fn times(incident: &Incident, d: &mut Differences) {
    d.equal("start_ns known", true, incident.start_ns > 0);
    d.equal("end_ns after start_ns", true, incident.end_ns.is_some_and(|end| end >= incident.start_ns));
    let raised: Vec<u64> = incident.panics.iter().map(|p| p.raised_ns).collect();
    d.equal("panics oldest first", true, raised.is_sorted());
    // Without a preceding Goexit, the first raise is the start.
    if let Some(first) = incident.panics.first().filter(|p| !p.goexit) {
        d.equal("start_ns is the first raise", first.raised_ns, incident.start_ns);
    }
    incident.panics.iter().for_each(|panic| defers(panic, d));
}

fn defers(panic: &Panic, d: &mut Differences) {
    for call in &panic.defers {
        d.equal("deferred call after the raise", true, call.start_ns >= panic.raised_ns);
        d.equal(
            "deferred call ends after it began",
            true,
            call.end_ns.is_none_or(|end| end >= call.start_ns),
        );
    }
    let in_order = panic.defers.windows(2).all(|w| w[0].start_ns <= w[1].start_ns);
    d.equal("deferred calls in the order they ran", true, in_order);
}
