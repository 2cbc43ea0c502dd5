//! Builds the status snapshot ([`crate::status`]) from the session.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use panicwatch_common::reason::Reason;

use crate::{
    clock,
    host::procfs,
    plan::{LeftOut, Site},
    probe::object::Programs,
    status::{Binary, Own, Probe, Process, Refused, Status},
    watch::{
        armed::Armed,
        armory::Armory,
        census::{Census, Known},
        governor::Told,
        session::Session,
    },
};

/// Builds snapshots, and remembers the previous counts to compute rates.
#[derive(Default)]
pub struct Painter {
    at: Option<Instant>,
    /// The constant part of each binary's status by row, with the binary it describes.
    drawn: HashMap<u32, (Weak<Armed>, Binary)>,
    /// By row: probe hits, and CPU time by PID of the processes that ran the binary.
    hits: HashMap<u32, u64>,
    cpu_ns: HashMap<u32, HashMap<u32, u64>>,
}

/// Facts about the daemon that the session does not know.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// Number of incidents that wait to be stored.
    pub to_store: u64,
    /// Problems that prevent the daemon from working, as sentences.
    pub problems: Vec<String>,
    /// Whether every expected probe is attached.
    pub ready: bool,
}

impl Painter {
    /// Builds a new snapshot.
    pub fn paint(&mut self, session: &Session, census: &Census, others: Others) -> Status {
        let armory = session.armory();
        let known = census.known();
        let now = Instant::now();
        let seconds = self.at.map(|at| now.duration_since(at).as_secs_f64());
        self.at = Some(now);
        let armed = armory.all();
        let rows = armed.iter().map(|armed| armed.index + 1).max().unwrap_or(0);
        let hits = armory.with_programs(|programs| programs.hits(rows)).unwrap_or_default();
        let governor = session.governor();
        let mut binaries = Vec::new();
        for armed in &armed {
            let mut binary = self.binary(armed, &known);
            if let (Some(seconds), Some(hits)) = (seconds, hits.get(armed.index as usize)) {
                self.rate(&mut binary, *hits, (seconds, governor.hit_ns), &known);
            }
            binaries.push(binary);
        }
        self.drawn.retain(|_, (drawn_of, _)| drawn_of.strong_count() > 0);
        self.cpu_ns.retain(|row, _| armed.iter().any(|armed| armed.index == *row));
        self.hits.retain(|row, _| armed.iter().any(|armed| armed.index == *row));
        binaries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut processes: Vec<Process> = known.into_iter().map(process).collect();
        processes.sort_by_key(|process| process.pid);
        Status {
            processes,
            binaries,
            ready: others.ready,
            problems: others.problems,
            own: self.own(session, &armory, census, others.to_store, governor),
        }
    }

    fn binary(&mut self, armed: &Arc<Armed>, known: &[Known]) -> Binary {
        let drawn = self.drawn.get(&armed.index).filter(|(of, _)| Weak::as_ptr(of) == Arc::as_ptr(armed));
        let mut binary = match drawn {
            Some((_, binary)) => binary.clone(),
            None => {
                let binary = binary(armed);
                self.drawn.insert(armed.index, (Arc::downgrade(armed), binary.clone()));
                binary
            }
        };
        let running = known.iter().filter(|known| known.row == Some(armed.index)).count();
        binary.processes = u32::try_from(running).unwrap_or(u32::MAX);
        binary
    }

    /// Sets the hit rate, and the overhead in percent of the CPU time that the processes used meanwhile.
    fn rate(
        &mut self,
        binary: &mut Binary,
        hits: u64,
        (seconds, hit_ns): (f64, Option<f64>),
        known: &[Known],
    ) {
        let before = self.hits.insert(binary.row, hits).unwrap_or(hits);
        // The count of a reused row starts again from 0.
        let more = hits.saturating_sub(before) as f64;
        binary.hits_per_second = if seconds > 0.0 { more / seconds } else { 0.0 };
        if more == 0.0 {
            // No rate to compute, and reading CPU times costs a system call per process.
            self.cpu_ns.remove(&binary.row);
            binary.overhead_percent = hit_ns.map(|_| 0.0);
            return;
        }
        let of_row = known.iter().filter(|known| known.row == Some(binary.row) && known.left_out.is_none());
        let used: HashMap<u32, u64> = of_row
            .filter_map(|known| Some((known.process.pid, clock::process_cpu_ns(known.process.pid)?)))
            .collect();
        let past = self.cpu_ns.insert(binary.row, used.clone());
        let spent: u64 = past.map_or(0, |past| {
            used.iter().map(|(pid, ns)| ns.saturating_sub(past.get(pid).copied().unwrap_or(*ns))).sum()
        });
        if let Some(hit_ns) = hit_ns
            && spent > 0
        {
            binary.overhead_percent = Some(more * hit_ns / spent as f64 * 100.0);
        }
    }

    fn own(&self, session: &Session, armory: &Armory, census: &Census, to_store: u64, governor: Told) -> Own {
        let failures = armory.with_programs(Programs::failures).unwrap_or_default();
        // A stack capture stops where the stack is no longer readable: that loses nothing.
        let lost = failures.into_iter().filter(|(reason, _)| *reason != Reason::StackRead);
        let lost = lost.map(|(reason, n)| (reason.sentence().to_owned(), n)).collect();
        let mut refused_binaries: HashMap<String, u64> = HashMap::new();
        for (path, reason) in census.refused() {
            // The reason starts with the path, which would make each reason unique.
            let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason).to_owned();
            *refused_binaries.entry(reason).or_default() += 1;
        }
        let mut refused_binaries: Vec<_> = refused_binaries.into_iter().collect();
        refused_binaries.sort();
        let gate = session.gate().map(|gate| gate.counts()).unwrap_or_default();
        Own {
            events: session.records(),
            lost,
            queue: session.queued(),
            to_store,
            refused_binaries,
            unread_programs: census
                .unread()
                .into_iter()
                .map(|(unread, n)| (unread.sentence().to_owned(), n))
                .collect(),
            shed: governor.shed,
            governor_actions: governor.actions,
            execs_held: gate.held,
            execs_released: gate.by_reason(),
            exec_gate_resets: gate.resets,
            overhead_percent: governor.cost_percent,
            host_overhead_percent: governor.host_percent,
            prices: governor.prices,
            memory_bytes: procfs::own_resident().unwrap_or(0),
            cpu_seconds: clock::process_cpu_ns(std::process::id()).map_or(0.0, |ns| ns as f64 / 1e9),
        }
    }
}

/// Returns the constant part of a binary's status.
fn binary(armed: &Armed) -> Binary {
    let program = &armed.program;
    let probe = |site: &Site| Probe {
        name: site.name.to_owned(),
        symbol: site.symbol.clone(),
        address: format!("{:#x}", site.address),
        price: site.price.as_str().to_owned(),
    };
    let refused = |left: &LeftOut| Refused { symbol: left.symbol.clone(), reason: left.reason.clone() };
    Binary {
        row: armed.index,
        path: program.path.display().to_string(),
        go_version: Some(program.bin.version().raw.clone()),
        module: armed.module(),
        build_id: program.bin.gnu_build_id().or_else(|| program.bin.go_build_id()),
        probes: program.plan.sites.iter().map(probe).collect(),
        refused: program.plan.left_out.iter().map(refused).collect(),
        ..Binary::default()
    }
}

fn process(known: Known) -> Process {
    let Known { process, row, left_out, incidents, .. } = known;
    Process {
        pid: process.pid,
        start_time: process.start_time,
        exe: process.exe,
        args: process.args,
        binary: row,
        watched: left_out.is_none(),
        reason: left_out,
        container: process.container,
        kubernetes: process.kubernetes,
        incidents,
    }
}
