//! Assigns arguments and results to registers and the stack, following Go's calling convention on amd64.
//! Arithmetic on types only.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/abi-internal.md#function-call-argument-and-result-passing>

use crate::go::gobin::dwarf::types::{BUDGET, GoTypes, Shape, TypeId};

/// Number of integer registers, and of floating-point registers.
const INTEGERS: usize = 9;
const FLOATS: usize = 15;
/// Maximum nesting of types.
const MAX_DEPTH: u32 = 32;

/// Location of a piece of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// An integer register, by its index in the convention's order (0 is RAX).
    Integer(usize),
    /// A floating-point register, by its index.
    Float(usize),
    /// Offset from the return address on the stack, in bytes.
    Stack(u64),
}

/// A part of a value that is in one location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the value, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Location of the piece.
    pub home: Home,
}

/// The pieces of each value; a value on the stack has one. `None` for a type that is not understood, and for
/// all values that follow it.
pub type Homes = Vec<Option<Vec<Piece>>>;

/// Integer registers of the convention, by their DWARF numbers: RAX, RBX, RCX, RDI, RSI, R8 to R11.
pub(super) const DWARF_REGISTERS: [u16; INTEGERS] = [0, 3, 2, 5, 4, 8, 9, 10, 11];

/// Assigns parameters, each with its registers according to the debug information, and results. `dictionary`:
/// index of the parameter that a hidden word precedes.
pub fn assign(
    types: &GoTypes,
    parameters: &[(TypeId, Option<&[u16]>)],
    results: &[TypeId],
    dictionary: Option<usize>,
) -> (Homes, Homes) {
    // Offset 0 is the return address.
    let mut state = State { types, integers: 0, floats: 0, stack: 8, budget: BUDGET, lost: false };
    let mut placed = Vec::new();
    for (i, (parameter, said)) in parameters.iter().enumerate() {
        if dictionary == Some(i) {
            state.integers += 1;
        }
        let mut pieces = state.place(*parameter);
        if let (Some(pieces), Some(said)) = (&mut pieces, said) {
            state.correct(pieces, said);
        }
        placed.push(pieces);
    }
    (state.integers, state.floats) = (0, 0);
    state.stack = state.stack.next_multiple_of(8);
    let results = results.iter().map(|result| state.place(*result)).collect();
    (placed, results)
}

struct State<'a> {
    types: &'a GoTypes,
    integers: usize,
    floats: usize,
    stack: u64,
    /// Remaining part of [`BUDGET`].
    budget: u32,
    /// Whether an earlier type was not understood, so that the location of later values is unknown.
    lost: bool,
}

impl State<'_> {
    fn place(&mut self, of: TypeId) -> Option<Vec<Piece>> {
        let own = self.types.get(of).filter(|own| own.shape != Shape::Unknown);
        let Some(own) = own.filter(|_| !self.lost) else {
            self.lost = true;
            return None;
        };
        let (integers, floats) = (self.integers, self.floats);
        let mut pieces = Vec::new();
        match self.registers(of, 0, &mut pieces, 0) {
            Ok(()) => {}
            Err(Why::NoRoom) => {
                (self.integers, self.floats) = (integers, floats);
                let offset = self.stack.next_multiple_of(self.types.align(of).max(1));
                self.stack = offset.checked_add(own.size)?;
                pieces = vec![Piece { offset: 0, size: own.size, home: Home::Stack(offset) }];
            }
            Err(Why::Unknown) => {
                self.lost = true;
                return None;
            }
        }
        Some(pieces)
    }

    /// Corrects the registers of a parameter to those in the debug information: old releases have no debug
    /// information for unnamed parameters, so that the next one is in a later register than computed.
    fn correct(&mut self, pieces: &mut [Piece], said: &[u16]) {
        let number = |register: &u16| DWARF_REGISTERS.iter().position(|known| known == register);
        let numbers: Vec<usize> = said.iter().filter_map(number).collect();
        let all_integers = pieces.iter().all(|piece| matches!(piece.home, Home::Integer(_)));
        if !all_integers || numbers.len() != pieces.len() || numbers.len() != said.len() {
            return;
        }
        for (piece, number) in pieces.iter_mut().zip(&numbers) {
            piece.home = Home::Integer(*number);
        }
        if let Some(last) = numbers.last() {
            self.integers = last + 1;
        }
    }

    fn integer(&mut self, offset: u64, size: u64, pieces: &mut Vec<Piece>) -> Result<(), Why> {
        if self.integers >= INTEGERS {
            return Err(Why::NoRoom);
        }
        pieces.push(Piece { offset, size, home: Home::Integer(self.integers) });
        self.integers += 1;
        Ok(())
    }

    fn float(&mut self, offset: u64, size: u64, pieces: &mut Vec<Piece>) -> Result<(), Why> {
        if self.floats >= FLOATS {
            return Err(Why::NoRoom);
        }
        pieces.push(Piece { offset, size, home: Home::Float(self.floats) });
        self.floats += 1;
        Ok(())
    }

    fn registers(&mut self, of: TypeId, at: u64, pieces: &mut Vec<Piece>, depth: u32) -> Result<(), Why> {
        self.budget = self.budget.saturating_sub(1);
        let believed = depth < MAX_DEPTH && self.budget > 0;
        let own = self.types.get(of).filter(|_| believed).ok_or(Why::Unknown)?;
        match &own.shape {
            Shape::Bool | Shape::Int | Shape::Uint => self.integer(at, own.size, pieces),
            Shape::Pointer(_) | Shape::Map | Shape::Chan | Shape::Func => self.integer(at, 8, pieces),
            Shape::Float => self.float(at, own.size, pieces),
            Shape::Complex => {
                self.float(at, own.size / 2, pieces)?;
                self.float(at + own.size / 2, own.size / 2, pieces)
            }
            Shape::String | Shape::Eface | Shape::Iface => {
                (0..2).try_for_each(|word| self.integer(at + 8 * word, 8, pieces))
            }
            Shape::Slice(_) => (0..3).try_for_each(|word| self.integer(at + 8 * word, 8, pieces)),
            Shape::Array(_, 0) => Ok(()),
            Shape::Array(elem, 1) => self.registers(*elem, at, pieces, depth + 1),
            Shape::Array(..) => Err(Why::NoRoom),
            Shape::Struct(fields) => fields.iter().try_for_each(|field| {
                let at = at.checked_add(field.offset).ok_or(Why::Unknown)?;
                self.registers(field.of, at, pieces, depth + 1)
            }),
            Shape::Alias(_) | Shape::Unknown => Err(Why::Unknown),
        }
    }
}

enum Why {
    /// The value does not fit in registers and is passed on the stack as a whole.
    NoRoom,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::gobin::dwarf::types::{Field, GoType};

    /// 0 int64, 1 float64, 2 string, 3 struct{int64; string}, 4 [2]int64, 5 int8, 6 unknown, 7 [1]int8
    fn types() -> GoTypes {
        let field = |of, offset| Field { name: String::new(), of, offset };
        let own = |size, shape| GoType { name: String::new(), size, shape };
        GoTypes::from_table(vec![
            own(8, Shape::Int),
            own(8, Shape::Float),
            own(16, Shape::String),
            own(24, Shape::Struct(vec![field(0, 0), field(2, 8)])),
            own(16, Shape::Array(0, 2)),
            own(1, Shape::Int),
            own(0, Shape::Unknown),
            own(1, Shape::Array(5, 1)),
        ])
    }

    fn homes(parameters: &[TypeId]) -> Vec<Vec<Home>> {
        let parameters: Vec<_> = parameters.iter().map(|of| (*of, None)).collect();
        let (placed, _) = assign(&types(), &parameters, &[], None);
        placed.into_iter().map(|p| p.expect("placed").iter().map(|p| p.home).collect()).collect()
    }

    #[test]
    fn registers_in_order() {
        use Home::{Float, Integer, Stack};
        assert_eq!(
            homes(&[0, 1, 2, 3, 7]),
            [
                vec![Integer(0)],
                vec![Float(0)],
                vec![Integer(1), Integer(2)],
                vec![Integer(3), Integer(4), Integer(5)],
                vec![Integer(6)]
            ]
        );
        assert_eq!(homes(&[4, 0]), [vec![Stack(8)], vec![Integer(0)]], "longer arrays go to the stack");
        assert_eq!(
            homes(&[3, 3, 2, 2, 0, 5]),
            [
                vec![Integer(0), Integer(1), Integer(2)],
                vec![Integer(3), Integer(4), Integer(5)],
                vec![Integer(6), Integer(7)],
                vec![Stack(8)],
                vec![Integer(8)],
                vec![Stack(24)]
            ],
            "what does not fit as a whole goes to the stack, and what comes later may still fit"
        );
    }

    #[test]
    fn results_begin_anew_behind_the_arguments() {
        let (_, results) = assign(&types(), &[(4, None), (5, None)], &[0, 4], None);
        let homes: Vec<_> = results.into_iter().map(|r| r.expect("placed")[0].home).collect();
        assert_eq!(homes, [Home::Integer(0), Home::Stack(24)]);
    }

    #[test]
    fn a_dictionary_takes_a_register() {
        let (placed, _) = assign(&types(), &[(0, None), (0, None)], &[], Some(1));
        let homes: Vec<_> = placed.into_iter().map(|p| p.expect("placed")[0].home).collect();
        assert_eq!(homes, [Home::Integer(0), Home::Integer(2)]);
    }

    #[test]
    fn what_the_debug_information_says_counts() {
        let said = [3, 2];
        let (placed, _) = assign(&types(), &[(2, Some(&said)), (0, None)], &[], None);
        let homes: Vec<Vec<_>> =
            placed.into_iter().map(|p| p.expect("placed").iter().map(|p| p.home).collect()).collect();
        assert_eq!(homes, [vec![Home::Integer(1), Home::Integer(2)], vec![Home::Integer(3)]]);
    }

    #[test]
    fn what_follows_the_unknown_is_unknown() {
        let (placed, results) = assign(&types(), &[(0, None), (6, None), (0, None)], &[0], None);
        assert!(placed[0].is_some() && placed[1].is_none() && placed[2].is_none() && results[0].is_none());
    }
}
