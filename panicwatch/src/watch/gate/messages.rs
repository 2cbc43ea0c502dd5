//! What the main process and the exec gate's process send each other: one JSON document a message, beside it descriptors. Pure.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why an exec was not held until its probes were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LetGo {
    /// Attaching took longer than an exec is held.
    Deadline,
    /// The main process did not respond.
    Unresponsive,
    /// As many execs as may be were held already.
    Full,
    /// The gate's process did not respond.
    Watchdog,
}

impl LetGo {
    /// All of them.
    pub const ALL: [LetGo; 4] = [LetGo::Deadline, LetGo::Unresponsive, LetGo::Full, LetGo::Watchdog];

    /// The label of its metric.
    pub fn label(self) -> &'static str {
        match self {
            LetGo::Deadline => "deadline",
            LetGo::Unresponsive => "unresponsive",
            LetGo::Full => "full",
            LetGo::Watchdog => "watchdog",
        }
    }
}

/// What the main process found out about a file that a process is about to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// A Go program that has probes.
    Armed,
    /// Nothing that could have probes.
    Other,
    /// It depends on the process: the next exec of the file must be asked about again.
    Undecided,
}

/// From the main process to the gate's process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToGate {
    /// Opens the fanotify group. Comes with the table of watched processes; without one every exec is asked about.
    Start { deadline_ms: u64 },
    /// Marks the file system of the descriptor that comes with it (O_PATH).
    Mark,
    /// The main process responds.
    Alive,
    /// The exec may go on.
    Answer { id: u64, content: Content },
    /// Every file is asked about again.
    ForgetFiles,
}

/// From the gate's process to the main process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromGate {
    /// The group is open, as this descriptor of the gate's process.
    Started { fanotify: i32 },
    /// It cannot be opened.
    Refused { reason: String },
    /// A file system was marked, or not.
    Marked { done: bool },
    /// The gate's loop runs. `respond`: it waits for [`ToGate::Alive`].
    Beat { respond: bool },
    /// Process `pid` is about to execute the file that comes with it.
    Ask { id: u64, pid: u32 },
    /// Watched process `pid` executes a file that is known; `armed`: it has probes.
    Passed { pid: u32, time_ns: u64, armed: bool },
    /// An exec of process `pid` was let go before an answer. It was asked about, unless `id` is `None`.
    Released { id: Option<u64>, pid: u32, time_ns: u64, reason: LetGo },
    /// Some [`FromGate::Passed`] and [`FromGate::Released`] were dropped: the main process received none for too long.
    Unreported,
    /// The gate's own watchdog removed all marks.
    Unmarked,
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Of such values it cannot fail; an empty message is refused by the other side.
    serde_json::to_vec(message).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let released =
            FromGate::Released { id: Some(u64::MAX), pid: u32::MAX, time_ns: 7, reason: LetGo::Full };
        assert_eq!(decode(&encode(&released)), Some(released));
        let answer = ToGate::Answer { id: 3, content: Content::Undecided };
        assert_eq!(decode(&encode(&answer)), Some(answer));
        assert_eq!(decode::<ToGate>(b""), None);
        assert_eq!(decode::<ToGate>(&encode(&FromGate::Unmarked)), None);
    }
}
