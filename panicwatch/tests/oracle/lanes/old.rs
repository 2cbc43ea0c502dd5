//! Parses the output of `go tool trace -d FILE` for traces of Go 1.19 and 1.21.
//!
//! The trace's clock is the processor's, counted from the beginning of the trace; the program's log lines in
//! it have the corresponding CLOCK_MONOTONIC times. The trace has the beginning of every system call, but the
//! end only of those that lost their P, so system calls count as running.
//! <https://github.com/golang/go/blob/go1.21.13/src/internal/trace/parser.go> (EventDescriptions,
//! Event.String)

use super::{Note, State, Trace, field, number};

/// Allowed variation of the difference between the two clocks over all log lines: the time to write one, and
/// the error of the frequency that the reader measures.
const NOTE_NS: i64 = 5_000_000;

/// Parses the trace, or returns why that fails.
pub(crate) fn read(text: &str) -> Result<Trace, String> {
    let mut trace = Trace::default();
    let mut last = 0;
    for line in text.lines() {
        let Some((time, rest)) = line.split_once(' ') else { continue };
        // Stacks are printed between the events, indented.
        let Ok(time_ns) = time.parse() else { continue };
        last = time_ns;
        event(&mut trace, rest, time_ns).ok_or_else(|| format!("not understood: {line:?}"))?;
    }
    trace.close(last);
    let (most, least) = trace.clock_ahead().ok_or("the program's notes are not in the trace")?;
    if most - least > NOTE_NS {
        return Err(format!(
            "the trace's clock drifts: notes put it {least} to {most} ns from the program's"
        ));
    }
    Ok(trace.moved(most))
}

fn event(trace: &mut Trace, text: &str, time_ns: u64) -> Option<()> {
    let (name, _) = text.split_once(' ')?;
    // "GoStart p=1 g=0 off=266 g=1 seq=0": the context of the event, then its arguments.
    let (by, arguments) = text.split_once(" off=")?;
    let own = || number::<u64>(by, "g");
    let other = || number::<u64>(arguments, "g");
    let (goroutine, to) = match name {
        "GoCreate" => (other()?, Some((State::Runnable, ""))),
        "GoUnblock" | "GoSysExit" => (other()?, Some((State::Runnable, ""))),
        "GoStart" | "GoStartLabel" => (other()?, Some((State::Running, ""))),
        "GoWaiting" => (other()?, Some((State::Waiting, ""))),
        "GoInSyscall" => (other()?, Some((State::Syscall, ""))),
        "GoSysBlock" => (own()?, Some((State::Syscall, ""))),
        "GoPreempt" => (own()?, Some((State::Runnable, "preempted"))),
        "GoSched" => (own()?, Some((State::Runnable, "runtime.Gosched"))),
        "GoEnd" => (own()?, None),
        "GoStop" => (own()?, Some((State::Waiting, "forever"))),
        _ if let Some(reason) = waits(name) => (own()?, Some((State::Waiting, reason))),
        "STWStart" | "GCSTWStart" => {
            // The reason extends to the end of the line and contains spaces.
            let (_, reason) = arguments.split_once(" kind=")?;
            let gc = if name == "GCSTWStart" { "GC " } else { "" };
            trace.stop(time_ns, &format!("{gc}{reason}"));
            return Some(());
        }
        "STWDone" | "GCSTWDone" => {
            trace.start(time_ns);
            return Some(());
        }
        "GCStart" | "GCDone" => {
            trace.mark(time_ns, name == "GCStart");
            return Some(());
        }
        "UserLog" => {
            trace.notes.push(Note {
                time_ns,
                what: field(arguments, "category")?.to_owned(),
                clock_ns: number(arguments, "message")?,
                goroutine: own()?,
            });
            return Some(());
        }
        _ => return Some(()),
    };
    trace.turn(goroutine, time_ns, to);
    Some(())
}

/// Returns the wait reason as later releases name it.
fn waits(event: &str) -> Option<&'static str> {
    Some(match event {
        "GoSleep" => "sleep",
        "GoBlock" => "unspecified",
        "GoBlockSend" => "chan send",
        "GoBlockRecv" => "chan receive",
        "GoBlockSelect" => "select",
        "GoBlockSync" => "sync",
        "GoBlockCond" => "sync.(*Cond).Wait",
        "GoBlockNet" => "network",
        "GoBlockGC" => "GC mark assist wait for work",
        _ => return None,
    })
}
