//! A goroutine is on one thread at a time: decides which thread had it when several may have.
//!
//! Recorded states have priority, later ones over earlier ones. Inferred states yield to them, and end at the
//! time at which another thread was recorded with the goroutine.

use super::thread::{Call, Holds, Known, Sched};

/// An interval in which nothing about a thread changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) tid: u32,
    pub(super) sched: Sched,
    pub(super) call: Call,
    pub(super) holds: Holds,
}

impl Piece {
    pub(super) fn inferred(&self) -> bool {
        matches!(
            self.holds,
            Holds::One { known: Known::Later | Known::Before | Known::Around | Known::Within, .. }
        )
    }

    /// Reports whether the thread was running and goroutines other than the recorded ones may have run on it.
    pub(super) fn may_hide_turns(&self) -> bool {
        matches!(self.sched, Sched::On(_)) && (self.inferred() || matches!(self.holds, Holds::Between(..)))
    }

    fn known(&self) -> Known {
        match self.holds {
            Holds::One { known: Known::Around, .. } => Known::Recorded,
            Holds::One { known, .. } => known,
            Holds::Between(..) | Holds::Unseen | Holds::Unknown(_) => Known::Recorded,
        }
    }
}

/// Brings the pieces of all threads that may have had one goroutine into a sequence without overlaps.
pub(super) fn in_turn(pieces: Vec<Piece>) -> Vec<Piece> {
    let of = |known| move |piece: &&Piece| piece.known() == known;
    let mut out = recorded(pieces.iter().filter(of(Known::Recorded)).copied().collect());
    let sure = out.clone();
    for known in [Known::Before, Known::Later, Known::Within] {
        let cut = |piece: &Piece| match known {
            Known::Before => until_seen(*piece, &sure),
            Known::Later => since_seen(*piece, &sure),
            _ => Some(*piece),
        };
        let mut guessed: Vec<Piece> = pieces.iter().filter(of(known)).filter_map(cut).collect();
        guessed.sort_by_key(|piece| (piece.from, piece.tid));
        let mut added = Vec::new();
        let mut at = 0;
        for mut piece in guessed {
            piece.from = piece.from.max(at);
            at = at.max(piece.to);
            without(piece, &out, &mut added);
        }
        out.append(&mut added);
        out.sort_by_key(|piece| piece.from);
    }
    out
}

/// Resolves overlaps of recorded pieces in favour of the later one.
fn recorded(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_by_key(|piece| (piece.from, piece.to));
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        while let Some(last) = out.last_mut().filter(|last| last.to > piece.from) {
            last.to = piece.from;
            if last.from < last.to {
                break;
            }
            out.pop();
        }
        out.push(piece);
    }
    out
}

/// Cuts a piece inferred from an earlier record: it ends when another thread is recorded with the goroutine.
fn until_seen(piece: Piece, sure: &[Piece]) -> Option<Piece> {
    let behind = sure.partition_point(|s| s.from < piece.from);
    let anchor = sure[..behind].iter().rev().find(|s| s.tid == piece.tid).map_or(0, |s| s.to);
    let first = sure.partition_point(|s| s.to <= anchor);
    let other = sure[first..].iter().find(|s| s.tid != piece.tid).map_or(u64::MAX, |s| s.from);
    let cut = Piece { to: piece.to.min(other), ..piece };
    (cut.from < cut.to).then_some(cut)
}

/// Cuts a piece inferred from a later record: it begins after another thread was last recorded with the
/// goroutine.
fn since_seen(piece: Piece, sure: &[Piece]) -> Option<Piece> {
    let ahead = sure.partition_point(|s| s.from < piece.to);
    let anchor = sure[ahead..].iter().position(|s| s.tid == piece.tid).map_or(sure.len(), |i| ahead + i);
    let other = sure[..anchor].iter().rev().find(|s| s.tid != piece.tid).map_or(0, |s| s.to);
    let cut = Piece { from: piece.from.max(other), ..piece };
    (cut.from < cut.to).then_some(cut)
}

/// Adds the parts of `piece` that overlap none of `taken`.
fn without(piece: Piece, taken: &[Piece], out: &mut Vec<Piece>) {
    let mut at = piece.from;
    for other in &taken[taken.partition_point(|t| t.to <= at)..] {
        if other.from >= piece.to {
            break;
        }
        if at < other.from {
            out.push(Piece { from: at, to: other.from, ..piece });
        }
        at = at.max(other.to);
    }
    if at < piece.to {
        out.push(Piece { from: at, ..piece });
    }
}
