//! Samples on the tracks of the goroutines they are of, or of the threads where there was none.

use panicwatch_common::recorder::Sample;

use super::{
    Input,
    functions::unnamed,
    model::{KernelFrame, Stack, Track, TrackKind},
    replay::Replay,
};
use crate::incident::{Addr, Frame};

/// Adds them.
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
    let kernel = &sample.kernel[..sample.kernel.len().min(sample.kernel_frames as usize)];
    let frames = user.iter().enumerate().flat_map(|(i, pc)| frames(input, *pc, i == 0)).collect();
    let symbol = |pc: &u64| KernelFrame { pc: Addr(*pc), symbol: input.names.kernel(*pc) };
    Stack {
        time_ns: sample.time_ns,
        cpu,
        thread: sample.tid,
        frames,
        kernel: kernel.iter().map(symbol).collect(),
    }
}

fn frames(input: &Input<'_>, pc: u64, exact: bool) -> Vec<Frame> {
    let frames = input.names.frames(pc, exact);
    if frames.is_empty() { vec![unnamed(pc)] } else { frames }
}
