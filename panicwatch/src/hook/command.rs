//! Runs a hook that is a command. Its arguments and environment hold nothing that the panicked program
//! controls.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    time,
};

use super::{Body, Failure, Notification};
use crate::{config, escape, incident::Incident};

/// Bytes kept of each of its output streams.
const MAX_OUTPUT: usize = 4096;
/// How long to read further output after the command has ended, from processes it started.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Search path for programs when our own environment has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the directories in which programs are searched, separated by colons.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned())
}

/// Runs the command with `incident` on its standard input.
pub(super) async fn run(
    hook: &config::Hook,
    incident: &Incident,
    notification: &Notification,
) -> Result<(), Failure> {
    let document = serde_json::to_vec(&Body::new(incident, notification))
        .map_err(|error| Failure::lasting(error.to_string()))?;
    let mut child = start(hook, incident, notification)?;
    let mut group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        let talk =
            async { tokio::join!(feed(stdin, &document), keep(stdout, &mut out), keep(stderr, &mut err)) };
        tokio::pin!(talk);
        let mut talked = false;
        let ended = time::timeout(hook.timeout.0, async {
            // The command may neither read its input nor close its output: only its exit counts.
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut talk, if !talked => talked = true,
                }
            }
        });
        let ended = ended.await;
        if ended.is_ok() {
            group.leave();
        }
        if ended.is_ok() && !talked {
            let _ = time::timeout(LAST_WORDS, &mut talk).await;
        }
        ended
    };
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::passing(format!("{status}{}", said(&err, &out)))),
        Ok(Err(error)) => Err(Failure::passing(error.to_string())),
        Err(_) => {
            drop(group);
            // It was killed; waiting for it leaves no zombie.
            let _ = child.wait().await;
            let after = hook.timeout.0;
            Err(Failure::passing(format!("killed: it took longer than {after:?}{}", said(&err, &out))))
        }
    }
}

fn start(hook: &config::Hook, incident: &Incident, notification: &Notification) -> Result<Child, Failure> {
    let [program, arguments @ ..] = hook.command.as_slice() else {
        return Err(Failure::lasting("it has no command"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", search_path());
    for name in ["HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .env("PANICWATCH_ID", &incident.id)
        .env("PANICWATCH_KIND", incident.kind.name())
        .env("PANICWATCH_OUTCOME", incident.outcome.name())
        .env("PANICWATCH_FINGERPRINT", &incident.fingerprint)
        .envs(known(incident, notification))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command.spawn().map_err(|error| Failure::passing(format!("cannot start {program}: {error}")))
}

/// Returns the environment variables whose values are known.
fn known(incident: &Incident, notification: &Notification) -> impl Iterator<Item = (&'static str, String)> {
    let host = incident.host.as_ref().and_then(|host| host.name.clone());
    let variables = [
        ("PANICWATCH_HOST", host),
        ("PANICWATCH_URL", notification.url.clone()),
        ("PANICWATCH_GROUP_COUNT", notification.group_count.map(|count| count.to_string())),
        ("PANICWATCH_NEW", notification.new.map(|new| new.to_string())),
    ];
    variables.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// Writes the document to the command's standard input.
async fn feed(stdin: Option<ChildStdin>, document: &[u8]) {
    if let Some(mut stdin) = stdin {
        // Fails if the command has closed its input: it wants no more.
        let _ = stdin.write_all(document).await;
    }
}

/// Reads until end of file and keeps the first bytes.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len());
        kept.extend(&chunk[..n.min(room)]);
    }
}

/// Formats what the command printed, for the log.
fn said(err: &[u8], out: &[u8]) -> String {
    let text = [err, out].into_iter().map(<[u8]>::trim_ascii).find(|text| !text.is_empty());
    let said = |text| format!("; its output: {}", escape::one_line(&String::from_utf8_lossy(text)));
    text.map(said).unwrap_or_default()
}

/// The process group of the command, killed on drop unless the command has exited.
struct Group(Option<i32>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()))
    }

    /// Lets the remaining processes of the group continue.
    fn leave(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // SAFETY: a system call without pointers. The leader of the group has not been waited for, so the
            // group's ID cannot have been reused.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}
