//! Compiles the list of memory reads for the arguments of a call, which the kernel executes at every hit.
//!
//! Reads are ordered breadth first, so that every argument is read before the data that any of them points
//! to. Data that does not fit is not read and shows as `…`. Does no I/O.

use std::collections::VecDeque;

use panicwatch_common::trace::{
    FRAME_WORD, FetchList, LARGE_LIMIT, NO_COUNT, SMALL_LIMIT, STEP_BYTES, STEPS, Step, WORDS,
};

use super::abi::{Home, Piece};
use crate::go::gobin::dwarf::types::{BUDGET, GoTypes, Shape, TypeId};

/// Maximum number of pointers followed in sequence.
const MAX_DEPTH: u32 = 2;
/// Maximum number of elements of a slice or array that are followed.
const ELEMENTS: u64 = 3;
/// Maximum number of bytes of a string or slice that is an argument itself, and of a deeper one.
const LONG: usize = STEP_BYTES;
const SHORT: usize = 64;
/// Maximum number of queued values, and of values followed in total.
const MAX_QUEUE: usize = 256;
const MAX_FOLLOWED: usize = 1024;
/// Bytes read of the value in an interface.
const BOXED: usize = 64;

/// A fetch list under construction.
#[derive(Debug, Clone, Default)]
pub struct Fetch {
    /// The reads, in order.
    pub steps: Vec<Step>,
    next: usize,
}

/// Location of a value's bytes in the data.
#[derive(Debug, Clone)]
enum Place {
    /// At this offset.
    At(usize),
    /// In pieces, each with its offset in the value and in the data; the second field is added to offsets in
    /// the value.
    Pieces(Vec<(u64, usize)>, u64),
}

impl Place {
    fn word(&self, offset: u64) -> Option<u16> {
        let at = match self {
            Place::At(at) => at.checked_add(usize::try_from(offset).ok()?)?,
            Place::Pieces(pieces, base) => {
                let wanted = base.checked_add(offset)?;
                pieces.iter().find(|(at, _)| *at == wanted)?.1
            }
        };
        u16::try_from(at).ok()
    }

    fn offset(&self, offset: u64) -> Option<Place> {
        Some(match self {
            Place::At(at) => Place::At(at.checked_add(usize::try_from(offset).ok()?)?),
            Place::Pieces(pieces, base) => Place::Pieces(pieces.clone(), base.checked_add(offset)?),
        })
    }
}

impl Fetch {
    /// Compiles the list for values of these types at these locations. Also returns the offset in the data of
    /// each piece of each value.
    pub fn compile(types: &GoTypes, values: &[(TypeId, &[Piece])]) -> (Fetch, Vec<Vec<usize>>) {
        let mut fetch = Fetch { steps: Vec::new(), next: 8 * WORDS };
        let mut queue = VecDeque::new();
        let mut places = Vec::new();
        for (of, pieces) in values {
            let at: Vec<usize> = pieces.iter().map(|piece| fetch.root(piece)).collect();
            let known = pieces.iter().zip(&at).map(|(piece, at)| (piece.offset, *at)).collect();
            let place = match pieces {
                [Piece { home: Home::Stack(_), .. }] => Place::At(at[0]),
                _ => Place::Pieces(known, 0),
            };
            if !at.contains(&NOWHERE) {
                queue.push_back((*of, place, 0));
            }
            places.push(at);
        }
        for _ in 0..MAX_FOLLOWED {
            let Some((of, place, depth)) = queue.pop_front() else { break };
            fetch.follow(types, of, &place, depth, &mut queue);
        }
        (fetch, places)
    }

    /// Returns the list for the kernel.
    pub fn list(&self) -> FetchList {
        let mut steps = [Step::default(); STEPS];
        steps[..self.steps.len()].copy_from_slice(&self.steps);
        let large = self.steps.iter().any(|step| usize::from(step.to) >= SMALL_LIMIT);
        FetchList { count: self.steps.len() as u32, large: u32::from(large), steps }
    }

    /// Returns the offset of an argument's piece in the data, and adds a read for a piece on the stack.
    fn root(&mut self, piece: &Piece) -> usize {
        match piece.home {
            Home::Integer(register) => 8 * register,
            Home::Float(_) => NOWHERE,
            Home::Stack(offset) => {
                let (base, size) =
                    ((8 * FRAME_WORD) as u16, usize::try_from(piece.size).unwrap_or(usize::MAX));
                let add = i32::try_from(offset).ok();
                // A value that is too large to read completely is not read at all.
                let fits = size <= STEP_BYTES;
                add.filter(|_| fits).and_then(|add| self.step(base, add, size, None)).unwrap_or(NOWHERE)
            }
        }
    }

    fn step(&mut self, base: u16, add: i32, max: usize, count: Option<(u16, u64)>) -> Option<usize> {
        let to = self.next;
        if self.steps.len() >= STEPS || to >= LARGE_LIMIT || max > STEP_BYTES {
            return None;
        }
        let (count, size) = match count {
            Some((count, size)) => (count, u32::try_from(size).ok()?),
            None => (NO_COUNT, 0),
        };
        self.steps.push(Step { base, to: to as u16, max: max as u16, count, size, add });
        self.next = (to + max).next_multiple_of(8);
        Some(to)
    }

    fn follow(
        &mut self,
        types: &GoTypes,
        of: TypeId,
        place: &Place,
        depth: u32,
        queue: &mut VecDeque<(TypeId, Place, u32)>,
    ) -> Option<()> {
        let own = types.get(of)?;
        match &own.shape {
            Shape::String => {
                let max = if depth == 0 { LONG } else { SHORT };
                self.step(place.word(0)?, 0, max, Some((place.word(8)?, 1)))?;
            }
            Shape::Slice(elem) => {
                let size = types.get(*elem)?.size;
                let max = if depth == 0 { LONG } else { SHORT };
                let to = self.step(place.word(0)?, 0, max, Some((place.word(8)?, size)))?;
                if depth < MAX_DEPTH && points(types, *elem) {
                    let whole = (max as u64).checked_div(size).unwrap_or(0).min(ELEMENTS);
                    queue.extend((0..whole).map(|i| (*elem, Place::At(to + (i * size) as usize), depth + 1)));
                }
            }
            Shape::Pointer(Some(elem)) if depth < MAX_DEPTH => {
                let size = usize::try_from(types.get(*elem)?.size).ok()?.min(STEP_BYTES);
                let to = self.step(place.word(0)?, 0, size, None)?;
                queue.push_back((*elem, Place::At(to), depth + 1));
            }
            Shape::Struct(fields) => {
                for field in fields {
                    if let Some(place) = place.offset(field.offset)
                        && queue.len() < MAX_QUEUE
                        && points(types, field.of)
                    {
                        queue.push_back((field.of, place, depth));
                    }
                }
            }
            Shape::Array(elem, len) if points(types, *elem) => {
                let size = types.get(*elem)?.size;
                for i in 0..(*len).min(ELEMENTS).min((MAX_QUEUE - queue.len().min(MAX_QUEUE)) as u64) {
                    queue.push_back((*elem, place.offset(i * size)?, depth));
                }
            }
            // In every release, the first word of a map is its number of entries, and that of a closure is
            // its code.
            Shape::Map | Shape::Func => {
                self.step(place.word(0)?, 0, 8, None)?;
            }
            Shape::Eface | Shape::Iface => {
                if own.shape == Shape::Iface {
                    // `itab`: the interface's type, then the value's type.
                    self.step(place.word(0)?, 0, 16, None)?;
                }
                let to = self.step(place.word(8)?, 0, BOXED, None)?;
                // Interfaces mostly hold strings, and errors that start with their text.
                let (base, count) = (u16::try_from(to).ok()?, u16::try_from(to + 8).ok()?);
                self.step(base, 0, 2 * SHORT, Some((count, 1)))?;
            }
            _ => {}
        }
        Some(())
    }
}

/// Offset of a piece that is not in the data.
pub const NOWHERE: usize = usize::MAX;

/// Reports whether values of this type contain anything to follow.
fn points(types: &GoTypes, of: TypeId) -> bool {
    points_within(types, of, &mut BUDGET.clone())
}

fn points_within(types: &GoTypes, of: TypeId, budget: &mut u32) -> bool {
    *budget = budget.saturating_sub(1);
    let Some(own) = types.get(of).filter(|_| *budget > 0) else { return false };
    match &own.shape {
        Shape::Struct(fields) => fields.iter().any(|field| points_within(types, field.of, budget)),
        Shape::Array(elem, _) => points_within(types, *elem, budget),
        Shape::Pointer(elem) => elem.is_some(),
        Shape::Bool | Shape::Int | Shape::Uint | Shape::Float | Shape::Complex => false,
        Shape::Chan | Shape::Alias(_) | Shape::Unknown => false,
        Shape::String | Shape::Slice(_) | Shape::Map | Shape::Func | Shape::Eface | Shape::Iface => true,
    }
}
