//! Messages between the main process and the gate process: one JSON document each, some with descriptors.
//! Pure.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why an exec was released before its probes were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LetGo {
    /// Attaching took longer than the deadline.
    Deadline,
    /// The main process did not respond.
    Unresponsive,
    /// The maximum number of execs was held already.
    Full,
    /// The gate process did not respond.
    Watchdog,
}

impl LetGo {
    /// Every reason, in the order of their numbers.
    pub const ALL: [LetGo; 4] = [LetGo::Deadline, LetGo::Unresponsive, LetGo::Full, LetGo::Watchdog];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            LetGo::Deadline => "deadline",
            LetGo::Unresponsive => "unresponsive",
            LetGo::Full => "full",
            LetGo::Watchdog => "watchdog",
        }
    }
}

/// What the main process found in a file that a process is about to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// A Go program with attached probes.
    Armed,
    /// A file that can have no probes.
    Other,
    /// It depends on the process: the gate must ask again at the next exec of the file.
    Undecided,
}

/// Messages from the main process to the gate process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToGate {
    /// Opens the fanotify group. Sent with a descriptor of the table of watched processes; without it the
    /// gate asks about every exec.
    Start { deadline_ms: u64 },
    /// Marks the file system of the descriptor sent with it (O_PATH).
    Mark,
    /// The main process is responsive.
    Alive,
    /// Allows the exec.
    Answer { id: u64, content: Content },
    /// Forgets all files, so that the gate asks about them again.
    ForgetFiles,
}

/// Messages from the gate process to the main process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FromGate {
    /// The group is open; `fanotify` is its descriptor number in the gate process.
    Started { fanotify: i32 },
    /// The group cannot be opened.
    Refused { reason: String },
    /// Result of a [`ToGate::Mark`].
    Marked { done: bool },
    /// Heartbeat of the gate's loop. With `respond` it waits for [`ToGate::Alive`].
    Beat { respond: bool },
    /// Process `pid` is about to execute the file whose descriptor is sent with it.
    Ask { id: u64, pid: u32 },
    /// Watched process `pid` executes a known file. `armed`: whether the file has probes.
    Passed { pid: u32, time_ns: u64, armed: bool },
    /// An exec of process `pid` was released before an answer. `id` is the number of its [`FromGate::Ask`],
    /// `None` if there was none.
    Released { id: Option<u64>, pid: u32, time_ns: u64, reason: LetGo },
    /// Some [`FromGate::Passed`] and [`FromGate::Released`] were dropped, because the main process did not
    /// receive messages for too long.
    Unreported,
    /// The gate's own watchdog removed all marks.
    Unmarked,
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    // Cannot fail for these types; the other side rejects an empty message.
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
