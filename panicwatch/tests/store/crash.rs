//! A daemon that is killed at an arbitrary moment.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc::channel},
    thread,
    time::Duration,
};

use panicwatch::store::{Archive as _, Outbox, Query, Store};

use crate::made::{batch, id, incident, open};

/// Environment variables of the child: the directory of its store, and the number of its first incident.
const DIR: &str = "PANICWATCH_TEST_STORE";
const FIRST: &str = "PANICWATCH_TEST_FIRST";
const ROUNDS: u64 = 25;
const GROUPS: u64 = 5;

/// Appends forever; prints the last number of each batch after writing it, and of the incidents after marking
/// them as sent.
fn child(dir: &Path, first: u64) {
    let store = Arc::new(open(dir, &["sent", "waits"]).store);
    let outbox = Outbox::new(store.clone(), "sent");
    let say = |line: String| {
        let mut out = io::stdout().lock();
        writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("the parent listens");
    };
    for start in (first..).step_by(8) {
        store.append(&batch(start..start + 8, GROUPS)).expect("written");
        say(format!("wrote {}", start + 7));
        outbox.done(&[&id(start), &id(start + 1)]).expect("written");
        say(format!("sent {}", start + 1));
    }
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_half() {
    if let (Ok(dir), Ok(first)) = (env::var(DIR), env::var(FIRST)) {
        return child(Path::new(&dir), first.parse().expect("a number"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut next = 0;
    for round in 0..ROUNDS {
        let time = Duration::from_millis(3 + round * 7 % 60);
        let (written, sent) = run_and_kill(dir.path(), next, time, round % 2 == 0);
        let opened = open(dir.path(), &["sent", "waits"]);
        assert!(opened.damaged.is_none(), "{:?}", opened.damaged);
        let store = Arc::new(opened.store);
        let there = store.size().expect("sizes").1;
        assert!(
            there.is_multiple_of(8) && there >= written,
            "{there} incidents, {written} were said to be written"
        );
        for n in next..there {
            assert_eq!(store.incident(&id(n)).expect("read"), Some(incident(n, GROUPS)), "incident {n}");
        }
        assert_eq!(store.counters().expect("counters").get("all").copied().unwrap_or(0), there);
        let groups = store.groups().expect("groups");
        assert_eq!(groups.iter().map(|group| group.count).sum::<u64>(), there);
        assert_eq!(listed(&store), there);
        let waiting = |name| Outbox::new(store.clone(), name).waiting().expect("a number");
        assert_eq!(waiting("waits"), there);
        let unsent = there - there / 8 * 2;
        // The child may have been killed before it marked incidents of the last batch of each round as sent.
        assert!((unsent..=unsent + 2 * (round + 1)).contains(&waiting("sent")), "{} wait", waiting("sent"));
        let outbox = Outbox::new(store.clone(), "sent");
        let waits: Vec<String> =
            outbox.pending(0, 10_000).expect("read").iter().map(|i| i.id.clone()).collect();
        assert!(sent.iter().all(|n| !waits.contains(&id(*n))), "what was sent is not sent again");
        next = there;
    }
    // At least a batch in each round that waits for one.
    assert!(next >= ROUNDS / 2 * 8, "too few were written to tell anything: {next}");
}

fn listed(store: &Store) -> u64 {
    let mut query = Query { limit: Some(1000), ..Query::default() };
    let mut n = 0;
    loop {
        let page = store.incidents(&query).expect("a page");
        n += page.incidents.len() as u64;
        query.before = page.next;
        if query.before.is_none() {
            return n;
        }
    }
}

/// Lets the child write from incident `first` on for `time`, then kills it; returns how many incidents are
/// written and the numbers of those sent, both as reported by the child. With `after_a_batch`, the time
/// begins when the child has reported its first batch, however slow the machine is; else when its store
/// exists.
fn run_and_kill(dir: &Path, first: u64, time: Duration, after_a_batch: bool) -> (u64, Vec<u64>) {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "crash::killed_at_any_moment_nothing_is_lost_or_half", "--nocapture"])
        .env(DIR, dir)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let out = child.stdout.take().expect("its output");
    let (has_written, first_batch) = channel();
    let reader = thread::spawn(move || {
        let (mut written, mut sent) = (None, Vec::new());
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let number = |text: &str| text.parse::<u64>().ok();
            if let Some(n) = line.strip_prefix("wrote ").and_then(number) {
                written = Some(n);
                // The receiver is gone if the first batch is not waited for.
                let _ = has_written.send(());
            }
            if let Some(n) = line.strip_prefix("sent ").and_then(number) {
                sent.extend([n - 1, n]);
            }
        }
        (written, sent)
    });
    // Waits until the child has created its store.
    while dir.join("incidents.redb").metadata().map_or(0, |meta| meta.len()) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    if after_a_batch {
        first_batch.recv().expect("the child writes a batch");
    }
    drop(first_batch);
    thread::sleep(time);
    child.kill().expect("it runs");
    child.wait().expect("it is dead");
    let (written, sent) = reader.join().expect("lines");
    (written.map_or(first, |n| n + 1), sent)
}
