//! Updates the record of a group for a new incident. Does no I/O.

use super::Group;
use crate::{
    frame_class::{self, Class},
    incident::{Frame, Incident, Kind},
    title::title,
};

/// Maximum number of executables named per group.
const MAX_BINARIES: usize = 8;
/// Maximum number of hours with a count per group.
const MAX_HOURS: usize = 48;

impl Group {
    /// Counts `incident`. `kept`: its document is kept.
    pub(super) fn add(&mut self, incident: &Incident, kept: bool) {
        if self.count == 0 {
            self.fingerprint.clone_from(&incident.fingerprint);
            self.first_seen.clone_from(&incident.time);
        }
        self.seen(&incident.time, 1);
        *self.outcomes.entry(incident.outcome.name().to_owned()).or_default() += 1;
        if !kept {
            self.counted += 1;
        }
        if kept && self.newest.as_ref().is_none_or(|newest| *newest <= incident.id) {
            self.newest = Some(incident.id.clone());
            self.title = title(incident);
            self.kind = Some(incident.kind);
            self.class = incident.panics.first().and_then(|panic| panic.value.type_name.clone());
            self.site = site(incident).map(place);
        }
        if let Some(binary) = incident.process.binary_name() {
            self.binary(binary);
        }
    }

    /// Counts panics of which only binary and function are known.
    pub(super) fn add_counted(&mut self, binary: &str, function: Option<&str>, count: u64, now: &str) {
        if self.count == 0 {
            self.first_seen = now.to_owned();
            self.title = "panics that were only counted".to_owned();
            self.kind = Some(Kind::Panic);
            self.site = function.map(str::to_owned);
        }
        self.seen(now, count);
        self.counted += count;
        *self.outcomes.entry("counted".to_owned()).or_default() += count;
        self.binary(binary);
    }

    fn seen(&mut self, time: &str, count: u64) {
        self.count += count;
        if self.last_seen.as_str() < time {
            time.clone_into(&mut self.last_seen);
        }
        let Some(hour) = hour(time) else { return };
        match self.hours.iter_mut().find(|(at, _)| *at == hour) {
            Some((_, n)) => *n += count,
            None => {
                self.hours.push((hour, count));
                self.hours.sort_unstable();
                let over = self.hours.len().saturating_sub(MAX_HOURS);
                self.hours.drain(..over);
            }
        }
    }

    fn binary(&mut self, name: &str) {
        if self.binaries.len() < MAX_BINARIES && !self.binaries.iter().any(|binary| binary == name) {
            self.binaries.push(name.to_owned());
        }
    }
}

/// Returns the hours since 1970 of an RFC 3339 time.
fn hour(time: &str) -> Option<u64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    u64::try_from(time.as_second() / 3600).ok()
}

/// Returns the frame that raised the panic; of a fatal error the innermost frame outside the runtime.
fn site(incident: &Incident) -> Option<&Frame> {
    let raised = incident.panics.first().and_then(|panic| panic.site.as_ref());
    let user = |frame: &&Frame| frame_class::of_frame(frame, None) != Class::Runtime;
    raised.or_else(|| incident.stack.iter().find(user)).or_else(|| incident.stack.first())
}

/// Returns the binary and the function that raised the panic, which map counted panics to their group.
pub(super) fn place_key(incident: &Incident) -> (&str, &str) {
    let function = site(incident).map_or("", |frame| frame.function.as_str());
    (incident.process.binary_name().unwrap_or_default(), function)
}

fn place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", frame.function),
        _ => frame.function.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Value;

    #[test]
    fn a_group_is_titled_as_its_newest_incident() {
        let text = include_str!("../../tests/incidents/recovered.json");
        let mut incident: Incident = serde_json::from_str(text).expect("a document");
        let mut group = Group::default();
        group.add(&incident, true);
        assert_eq!(group.title, "runtime error: index out of range [6] with length 3");
        incident.message = None;
        incident.panics[0].value = Value {
            type_name: Some("*main.QuotaError".to_owned()),
            detail: Some("&{Limit:5}".to_owned()),
            ..Value::default()
        };
        group.add(&incident, true);
        assert_eq!(group.title, "*main.QuotaError{Limit:5}");
    }
}
