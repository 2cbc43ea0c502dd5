//! The comparison that decides a conditional jump, and a description of what it compares.
//!
//! Knows instructions and conditions. Must not know functions of the runtime; knows only what a bounds error
//! is.

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic};

use super::{
    Check,
    bounds::BoundsCode,
    code::{Arrival, Body},
    term::{self, Term, Uses},
};

/// Maximum number of instructions between a comparison and its jump.
const MAX_BETWEEN: usize = 16;

/// Relation of two values for which it raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Relation {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Relation::Less => "<",
            Relation::LessOrEqual => "≤",
            Relation::Greater => ">",
            Relation::GreaterOrEqual => "≥",
            Relation::Equal => "==",
            Relation::NotEqual => "≠",
        }
    }
}

/// A comparison: `left relation right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) left: Term,
    pub(super) relation: Relation,
    /// Whether the values are compared as signed numbers; `None` where it makes no difference.
    pub(super) signed: Option<bool>,
    pub(super) right: Term,
}

impl Comparison {
    /// Formats the comparison: `%rax > 3, signed`; `name` returns the name of a value.
    pub(super) fn words(&self, name: &dyn Fn(&Term) -> String) -> String {
        let (left, right) = (name(&self.left), name(&self.right));
        format!("{left} {} {right}{}", self.relation.symbol(), signedness(self.signed))
    }
}

pub(super) fn signedness(signed: Option<bool>) -> &'static str {
    match signed {
        None => "",
        Some(true) => ", signed",
        Some(false) => ", unsigned",
    }
}

/// The condition under which an instruction is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) jump: usize,
    pub(super) compare: Option<usize>,
    /// `None` when the flags do not result from a comparison of two values.
    pub(super) comparison: Option<Comparison>,
    /// Instructions from the last label before the comparison to the guarded instruction, in order.
    pub(super) path: Vec<usize>,
    /// Number of instructions in `path` before the comparison.
    pub(super) before: usize,
    /// Whether further instructions run that are not in `path`.
    pub(super) gap: bool,
    pub(super) check: Check,
}

/// Returns the decision of `arrival`.
pub(super) fn decision(body: &Body, arrival: &Arrival) -> Option<Decision> {
    let jump = body.get(arrival.jump)?;
    let compare = compare_of(body, arrival.jump);
    let instruction = compare.and_then(|i| body.get(i));
    let mut raising = *jump;
    if !arrival.taken {
        raising.negate_condition_code();
    }
    let comparison = instruction.and_then(|c| comparison(c, raising.condition_code()));
    let first = compare.unwrap_or(arrival.jump);
    let mut path = body.run_before(first);
    let before = path.len();
    path.extend(first..arrival.jump);
    path.extend(&arrival.path);
    let text = match instruction {
        Some(c) => format!("{}; {}", term::text(c), mnemonic(jump)),
        None => mnemonic(jump),
    };
    let check = Check {
        jump: jump.ip(),
        compare: instruction.map(Instruction::ip),
        raises_if_taken: arrival.taken,
        text,
    };
    Some(Decision { jump: arrival.jump, compare, comparison, path, before, gap: arrival.gap, check })
}

fn mnemonic(jump: &Instruction) -> String {
    term::text(jump).split_whitespace().next().unwrap_or_default().to_owned()
}

/// Returns the instruction whose flags the jump tests.
pub(super) fn compare_of(body: &Body, jump: usize) -> Option<usize> {
    let mut at = jump;
    for _ in 0..MAX_BETWEEN {
        if body.is_leader(at) {
            return None;
        }
        at = at.checked_sub(1)?;
        let instruction = body.get(at)?;
        if instruction.rflags_modified() != 0 {
            return Some(at);
        }
        if !keeps_flags(instruction) {
            return None;
        }
    }
    None
}

/// Returns the conditional jumps that test the flags of instruction `compare`.
pub(super) fn jumps_of(body: &Body, compare: usize) -> Vec<usize> {
    let mut out = Vec::new();
    if body.get(compare).is_none_or(|i| i.rflags_modified() == 0) {
        return out;
    }
    for at in compare + 1..compare + 1 + MAX_BETWEEN {
        let Some(instruction) = body.get(at) else { break };
        if instruction.rflags_modified() != 0 || body.is_leader(at) || !keeps_flags(instruction) {
            break;
        }
        if instruction.is_jcc_short_or_near() {
            out.push(at);
        }
    }
    out
}

/// Reports whether the instruction's control flow keeps the flags valid: ordinary instructions and jumps that
/// are not taken. `cmp; jge; jae` is one comparison for two jumps.
fn keeps_flags(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch)
}

fn comparison(compare: &Instruction, condition: ConditionCode) -> Option<Comparison> {
    let (left, right) = match compare.mnemonic() {
        Mnemonic::Cmp | Mnemonic::Sub => (term::operand(compare, 0)?, term::operand(compare, 1)?),
        Mnemonic::Test if term::operand(compare, 0) == term::operand(compare, 1) => {
            (term::operand(compare, 0)?, Term::Constant(0))
        }
        _ => return None,
    };
    let zero = right == Term::Constant(0);
    let (relation, signed) = match condition {
        ConditionCode::b => (Relation::Less, Some(false)),
        ConditionCode::ae => (Relation::GreaterOrEqual, Some(false)),
        ConditionCode::be => (Relation::LessOrEqual, Some(false)),
        ConditionCode::a => (Relation::Greater, Some(false)),
        ConditionCode::l => (Relation::Less, Some(true)),
        ConditionCode::ge => (Relation::GreaterOrEqual, Some(true)),
        ConditionCode::le => (Relation::LessOrEqual, Some(true)),
        ConditionCode::g => (Relation::Greater, Some(true)),
        ConditionCode::e => (Relation::Equal, None),
        ConditionCode::ne => (Relation::NotEqual, None),
        // The sign of a difference gives the order only if the subtraction cannot overflow.
        ConditionCode::s if zero => (Relation::Less, Some(true)),
        ConditionCode::ns if zero => (Relation::GreaterOrEqual, Some(true)),
        _ => return None,
    };
    Some(Comparison { left, relation, signed, right })
}

/// The two values of a bounds check; y is `None` where x was only found to be negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) x: Term,
    pub(super) y: Option<Term>,
}

/// Returns what a check that raises `code` compares, determined from the direction of its comparison.
///
/// s[x] raises when x ≥ y, all others when x > y; a comparison with a constant may be off by one (x ≥ 4 for x
/// > 3).
pub(super) fn bounds_pair(code: BoundsCode, comparison: &Comparison) -> Option<Pair> {
    let (left, right) = (&comparison.left, &comparison.right);
    let constant = |delta: i64| match right {
        Term::Constant(n) => n.checked_add(delta).map(Term::Constant),
        _ => None,
    };
    let pair = |x: &Term, y: &Term| Some(Pair { x: x.clone(), y: Some(y.clone()) });
    match (comparison.relation, code.may_be_equal()) {
        (Relation::Less, _) if comparison.signed == Some(true) && *right == Term::Constant(0) => {
            Some(Pair { x: left.clone(), y: None })
        }
        (Relation::GreaterOrEqual, false) | (Relation::Greater, true) => pair(left, right),
        (Relation::LessOrEqual, false) | (Relation::Less, true) => pair(right, left),
        (Relation::GreaterOrEqual, true) => pair(left, &constant(-1)?),
        (Relation::Greater, false) => pair(left, &constant(1)?),
        (Relation::LessOrEqual, true) => pair(&constant(1)?, left),
        (Relation::Less, false) => pair(&constant(-1)?, left),
        // x ≥ y for x = 0 and y ≥ 0.
        (Relation::Equal, false) if *right == Term::Constant(0) => pair(right, left),
        (Relation::Equal | Relation::NotEqual, _) => None,
    }
}

/// Reports whether `compared`, an operand of the comparison, is the value of `passed` at the raising call.
pub(super) fn is_passed(
    body: &Body,
    decision: &Decision,
    compared: &Term,
    passed: &Term,
    uses: &mut Uses,
) -> bool {
    if decision.gap {
        return false;
    }
    let before = &decision.path[..decision.before];
    let behind = &decision.path[decision.before..];
    let Term::Register(register) = passed else { return compared == passed };
    if uses.origin(body, behind, *register).is_some_and(|origin| origin.same(compared)) {
        return true;
    }
    let Some(origin) = uses.origin(body, &decision.path, *register) else { return false };
    match compared {
        Term::Register(r) => uses.origin(body, before, *r).is_some_and(|other| other.same(&origin)),
        _ => origin.same(compared),
    }
}
