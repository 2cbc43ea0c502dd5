//! Adds samples to the tracks of their goroutines, or to those of threads for samples without a goroutine.

use panicwatch_common::recorder::{IN_TICK, Sample};

use super::{Input, functions::unnamed, replay::Replay};
use crate::incident::{
    Addr, Frame,
    timeline::{KernelFrame, Stack, Track, TrackKind},
};

/// Adds the samples to `tracks`.
pub(super) fn add(input: &Input<'_>, replay: &Replay, tracks: &mut [Track]) {
    for (cpu, sample) in input.own_samples().filter(|(_, sample)| input.is_shown(sample.time_ns)) {
        let goid = Some(sample.goid).filter(|id| *id != 0);
        let owner = match goid.or_else(|| replay.goroutine_of(sample.tid, sample.time_ns)) {
            Some(goid) => (TrackKind::Goroutine, goid),
            None => (TrackKind::Thread, u64::from(sample.tid)),
        };
        if let Some(track) = tracks.iter_mut().find(|track| (track.kind, track.id) == owner) {
            track.samples.push(stack(input, cpu, sample));
        }
    }
}

fn stack(input: &Input<'_>, cpu: u32, sample: &Sample) -> Stack {
    let user = &sample.user[..sample.user.len().min(sample.user_frames as usize)];
    let frames = user.iter().enumerate().flat_map(|(i, pc)| frames(input, *pc, i == 0)).collect();
    Stack { time_ns: sample.time_ns, cpu, thread: sample.tid, frames, kernel: kernel(input, sample) }
}

/// Returns the kernel frames that were interrupted; empty if user code was interrupted.
fn kernel(input: &Input<'_>, sample: &Sample) -> Vec<KernelFrame> {
    let in_tick = sample.kernel_frames & IN_TICK != 0;
    let count = (sample.kernel_frames & !IN_TICK) as usize;
    let symbol = |pc: &u64| KernelFrame { pc: Addr(*pc), symbol: input.names.kernel(*pc) };
    let frames = sample.kernel[..sample.kernel.len().min(count)].iter().map(symbol);
    if in_tick { interrupted(frames) } else { frames.collect() }
}

/// Returns the frames behind those of the tick itself. Without symbols, nothing can be identified as
/// interrupted.
fn interrupted(frames: impl Iterator<Item = KernelFrame>) -> Vec<KernelFrame> {
    let of_tick = |frame: &KernelFrame| frame.symbol.as_deref().is_none_or(handles_timers);
    frames.skip_while(of_tick).collect()
}

/// Reports whether a function is on the path from the entry of the timer interrupt to the program at the
/// tracepoint.
/// <https://github.com/torvalds/linux/blob/v6.12/arch/x86/kernel/apic/apic.c> sysvec_apic_timer_interrupt,
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/time/hrtimer.c> hrtimer_interrupt
fn handles_timers(symbol: &str) -> bool {
    let name = symbol.split_once('+').map_or(symbol, |(name, _)| name);
    // The compiler splits and clones functions: "name.part.0", "name.constprop.0".
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    name.contains("timer_interrupt")
        || name.starts_with("bpf_prog_")
        || name.starts_with("__traceiter_")
        || name.starts_with("__bpf_trace_")
        || name.starts_with("bpf_trace_run")
        || matches!(name, "hrtimer_interrupt" | "__hrtimer_run_queues" | "__run_hrtimer")
}

fn frames(input: &Input<'_>, pc: u64, exact: bool) -> Vec<Frame> {
    let frames = input.names.frames(pc, exact);
    if frames.is_empty() { vec![unnamed(pc)] } else { frames }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: [&str; 7] = [
        "bpf_prog_87b17d1e7ca7530c_hrtimer_expire_entry+0x1d0",
        "bpf_trace_run2+0x6d",
        "__hrtimer_run_queues+0x1f5",
        "hrtimer_interrupt+0xf8",
        "__sysvec_apic_timer_interrupt+0x54",
        "sysvec_apic_timer_interrupt+0x60",
        "asm_sysvec_apic_timer_interrupt+0x16",
    ];

    fn left(symbols: &[&str]) -> Vec<String> {
        let frame = |symbol: &&str| KernelFrame { pc: Addr(1), symbol: Some((*symbol).to_owned()) };
        interrupted(symbols.iter().map(frame)).into_iter().filter_map(|frame| frame.symbol).collect()
    }

    #[test]
    fn the_tick_is_no_part_of_what_it_interrupted() {
        assert!(left(&TICK).is_empty());
        let inside = ["ep_send_events+0x13b", "do_epoll_wait+0x1a4"];
        assert_eq!(left(&[&TICK[..], &inside[..]].concat()), inside);
        // A softirq that an earlier interrupt raised, interrupted itself.
        let softirq = ["handle_softirqs+0xcd", "__irq_exit_rcu+0x9f", "sysvec_apic_timer_interrupt+0x66"];
        assert_eq!(left(&[&TICK[..], &softirq[..]].concat()), softirq);
    }

    #[test]
    fn without_names_nothing_is_said_to_be_interrupted() {
        let nameless = || KernelFrame { pc: Addr(0xffff_ffff_8100_0000), symbol: None };
        assert!(interrupted((0..9).map(|_| nameless())).is_empty());
    }
}
