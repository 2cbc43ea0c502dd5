//! Scans one function: which of its instructions raise, and the description of each.

use std::{cell::RefCell, collections::BTreeMap};

use iced_x86::Register;

use super::{
    BoundsCode, Certainty, Kind, Operand, RaisedBy, Seen, bounds,
    callee::{self, Callee},
    check::{self, Decision, Pair, Relation},
    code::{Arrivals, Body},
    fault::{self, Fault, Known},
    image::Image,
    term::{self, Term, Uses, register_text},
    words,
};

/// Maximum number of raising instructions listed for one function.
const MAX_PLACES: usize = 1 << 16;

/// A call that raises.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) callee: Callee,
}

/// A function, with those of its calls that raise.
pub(super) struct Scan<'a> {
    pub(super) body: Body,
    pub(super) image: &'a dyn Image,
    pub(super) calls: BTreeMap<usize, Call>,
    uses: RefCell<Uses>,
}

/// A call, with the paths by which it is reached.
struct Reached<'s> {
    index: usize,
    call: &'s Call,
    /// All paths to the call.
    arrivals: Arrivals,
    /// The same without branches that decide nothing.
    deciding: Arrivals,
    /// The decisions of `deciding`.
    decisions: Vec<Decision>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(body: Body, image: &'a dyn Image) -> Self {
        let mut scan = Self { body, image, calls: BTreeMap::new(), uses: RefCell::new(Uses::new()) };
        let mut calls = BTreeMap::new();
        for i in 0..scan.body.len() {
            let Some(name) = scan.body.leaves_for(i).and_then(|to| image.function_at(to)) else { continue };
            let Some(callee) = callee::find(&name, image.release()) else { continue };
            if !scan.may_fail(i, &name) {
                calls.insert(i, Call { name, callee });
            }
        }
        scan.calls = calls;
        scan
    }

    /// Reports whether the call is `v, ok := x.(I)`, which raises nothing.
    fn may_fail(&self, i: usize, name: &str) -> bool {
        if name != "runtime.typeAssert" {
            return false;
        }
        let run = self.body.run_before(i);
        match self.origin(&run, Register::RAX) {
            Some(Term::Address(at)) => self.image.type_assert(at).is_some_and(|(_, can_fail)| can_fail),
            _ => false,
        }
    }

    fn origin(&self, path: &[usize], register: Register) -> Option<Term> {
        self.uses.borrow_mut().origin(&self.body, path, register)
    }

    /// Reports whether instruction `i` is a call that never returns.
    pub(super) fn always(&self, i: usize) -> bool {
        self.calls.get(&i).is_some_and(|c| c.callee.certainty == Certainty::Always)
    }

    /// Reports whether the conditional jump decides whether call `i` is reached.
    pub(super) fn decides(&self, jump: usize, i: usize) -> bool {
        let stops = |j| self.always(j);
        let ways = self.body.deciding(self.body.arrivals(i, &stops), &stops);
        ways.decided.iter().any(|a| a.jump == jump)
    }

    pub(super) fn fault(&self, i: usize) -> Option<Fault> {
        fault::of(self.body.get(i)?, &mut self.uses.borrow_mut())
    }

    /// Returns all instructions that can raise, by ascending address.
    pub(super) fn everything(&self) -> Vec<RaisedBy> {
        let divides = self.calls.values().any(|c| c.callee.kind == Kind::Divide);
        let mut known = Known::default();
        let mut out = Vec::new();
        for i in 0..self.body.len() {
            let Some(instruction) = self.body.get(i) else { break };
            if out.len() >= MAX_PLACES {
                break;
            }
            if self.body.is_leader(i) {
                known.forget();
            }
            let fault = self.fault(i);
            let said = match &fault {
                _ if self.calls.contains_key(&i) => self.describe(i, None),
                // The compiler checks divisors itself.
                Some(Fault::Divide(_)) if !divides => self.describe(i, None),
                Some(f) if f.pointers().any(|p| !known.holds(p)) => self.describe(i, None),
                _ => None,
            };
            out.extend(said);
            known.pass(instruction, fault.as_ref(), &mut self.uses.borrow_mut());
        }
        out
    }

    /// Describes what instruction `i` raises; `None` if it raises nothing. `focus` is the queried jump.
    pub(super) fn describe(&self, i: usize, focus: Option<usize>) -> Option<RaisedBy> {
        let instruction = self.body.get(i)?;
        let place = self.image.place(instruction.ip());
        let mut out = RaisedBy {
            at: instruction.ip(),
            instruction: term::text(instruction),
            kind: Kind::Nil,
            certainty: Certainty::Fault,
            by: None,
            checks: Vec::new(),
            operands: Vec::new(),
            type_name: None,
            message: None,
            function: place.function,
            file: place.file,
            line: place.line,
            words: String::new(),
            otherwise: None,
        };
        match self.calls.get(&i) {
            Some(call) => self.describe_call(&self.reach(i, call, focus), &mut out),
            None => describe_fault(&self.fault(i)?, &mut out),
        }
        Some(out)
    }

    fn reach<'s>(&self, index: usize, call: &'s Call, focus: Option<usize>) -> Reached<'s> {
        let stops = |j| self.always(j);
        let mut arrivals = match call.callee.certainty {
            Certainty::Always => self.body.arrivals(index, &stops),
            // The paths to a call that may return are not searched.
            _ => Arrivals { incomplete: true, ..Arrivals::default() },
        };
        if let Some(at) = arrivals.decided.iter().position(|a| Some(a.jump) == focus) {
            // One check was queried: the others are irrelevant.
            let decided = vec![arrivals.decided.swap_remove(at)];
            arrivals = Arrivals { decided, ..Arrivals::default() };
        }
        let mut deciding = self.body.deciding(arrivals.clone(), &stops);
        if let Some(at) = deciding.decided.iter().position(|a| Some(a.jump) == focus) {
            let decided = vec![deciding.decided.swap_remove(at)];
            deciding = Arrivals { decided, ..Arrivals::default() };
        }
        let decisions = deciding.decided.iter().filter_map(|a| check::decision(&self.body, a)).collect();
        Reached { index, call, arrivals, deciding, decisions }
    }

    /// Returns the value of `register` at the call, if all paths agree on a constant or an address.
    fn argument(&self, reached: &Reached<'_>, register: Register) -> Option<Term> {
        if reached.arrivals.incomplete {
            return self.fixed(&self.body.run_before(reached.index), register);
        }
        let decided: Vec<_> =
            reached.arrivals.decided.iter().filter_map(|a| check::decision(&self.body, a)).collect();
        let paths = decided.iter().map(|d| &d.path).chain(&reached.arrivals.plain);
        let mut all = paths.map(|path| self.fixed(path, register));
        let first = all.next()??;
        all.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    fn fixed(&self, path: &[usize], register: Register) -> Option<Term> {
        match self.origin(path, register)? {
            found @ (Term::Constant(_) | Term::Address(_)) => Some(found),
            // Loaded from a table of the compiler's, such as an itab.
            Term::Fixed(at, 8) => self.image.word(at).map(Term::Address),
            _ => None,
        }
    }

    fn address(&self, reached: &Reached<'_>, register: Register) -> Option<u64> {
        match self.argument(reached, register)? {
            Term::Address(at) => Some(at),
            _ => None,
        }
    }

    fn describe_call(&self, reached: &Reached<'_>, out: &mut RaisedBy) {
        let Call { name, callee } = reached.call;
        out.kind = callee.kind;
        out.certainty = callee.certainty;
        out.by = Some(name.clone());
        if callee.certainty == Certainty::Always {
            out.checks = reached.decisions.iter().map(|d| d.check.clone()).collect();
        }
        if matches!(callee.kind, Kind::Bounds { .. }) {
            return self.describe_bounds(reached, out);
        }
        self.describe_value(reached, out);
        if callee.certainty == Certainty::Always {
            self.compared(reached, out);
        }
        for (role, register) in &callee.arguments {
            if out.operand(role).is_none() {
                let term = self.argument(reached, *register).unwrap_or(Term::Register(*register));
                out.operands.push(Operand { role, what: term.text(), seen: Seen::Call });
            }
        }
        let when = words::when(&reached.decisions, &reached.deciding, &out.operands);
        out.words = words::call(callee, out, &when);
    }

    /// Determines the type and the text passed to the call.
    fn describe_value(&self, reached: &Reached<'_>, out: &mut RaisedBy) {
        let type_in = |register| self.image.type_name(self.address(reached, register)?);
        match (reached.call.callee.kind, reached.call.name.as_str()) {
            (Kind::Panic, _) => {
                out.type_name = type_in(Register::RAX);
                if out.type_name.as_deref() == Some("string") {
                    out.message = self.address(reached, Register::RBX).and_then(|at| self.image.string(at));
                }
            }
            (Kind::Throw | Kind::Fatal, _) => {
                if let (Some(at), Some(Term::Constant(len))) =
                    (self.address(reached, Register::RAX), self.argument(reached, Register::RBX))
                {
                    out.message = u64::try_from(len).ok().and_then(|len| self.image.text(at, len));
                }
            }
            (Kind::Assertion, "runtime.typeAssert") => {
                let at = self.address(reached, Register::RAX).and_then(|at| self.image.type_assert(at));
                out.type_name = at.and_then(|(inter, _)| self.image.type_name(inter));
            }
            (Kind::Assertion, "runtime.panicdottypeE" | "runtime.panicdottypeI") => {
                out.type_name = type_in(Register::RBX);
            }
            (Kind::Assertion, _) => out.type_name = type_in(Register::RAX),
            _ => {}
        }
    }

    /// Adds the operands of the comparison, if a single one decides.
    fn compared(&self, reached: &Reached<'_>, out: &mut RaisedBy) {
        let mut all = reached.decisions.iter().map(|d| self.named(reached, d));
        let Some(Some(first)) = all.next() else { return };
        let alone = reached.deciding.plain.is_empty() && !reached.deciding.incomplete;
        if alone && all.all(|other| other.as_ref() == Some(&first)) {
            out.operands = first;
        }
    }

    fn named(&self, reached: &Reached<'_>, decision: &Decision) -> Option<Vec<Operand>> {
        let c = decision.comparison.as_ref()?;
        let operand = |role, term: &Term| Operand { role, what: term.text(), seen: Seen::Compare };
        let zero = c.right == Term::Constant(0);
        Some(match (reached.call.callee.kind, c.relation) {
            (Kind::Divide, Relation::Equal) if zero => vec![operand("divisor", &c.left)],
            (Kind::Shift, Relation::Less) if zero => vec![operand("shift count", &c.left)],
            (Kind::Assertion, Relation::Equal) if zero => vec![operand("dynamic type", &c.left)],
            (Kind::Assertion, Relation::NotEqual) => {
                let before = &decision.path[..decision.before];
                let is_type = |t: &Term| match t {
                    Term::Register(r) => matches!(self.origin(before, *r), Some(Term::Address(_))),
                    _ => false,
                };
                let (dynamic, asserted) = if reached.call.name.ends_with('I') {
                    ("itab", "asserted itab")
                } else {
                    ("dynamic type", "asserted type")
                };
                match (is_type(&c.left), is_type(&c.right)) {
                    (false, true) => vec![operand(dynamic, &c.left), operand(asserted, &c.right)],
                    (true, false) => vec![operand(dynamic, &c.right), operand(asserted, &c.left)],
                    _ => vec![operand("left", &c.left), operand("right", &c.right)],
                }
            }
            _ => vec![operand("left", &c.left), operand("right", &c.right)],
        })
    }

    fn describe_bounds(&self, reached: &Reached<'_>, out: &mut RaisedBy) {
        let callee = &reached.call.callee;
        let passed = match (callee.kind, callee.arguments.as_slice()) {
            (Kind::Bounds { code: Some(code), signed }, [(_, x), (_, y)]) => {
                Some((code, signed, Term::Register(*x), Term::Register(*y)))
            }
            _ => self.image.bounds(out.at).and_then(bounds::decode).map(|e| (e.code, e.signed, e.x, e.y)),
        };
        let when = words::when(&reached.decisions, &reached.deciding, &[]);
        let Some((code, signed, x, y)) = passed else {
            out.words = words::bounds_unknown(out, &when);
            return;
        };
        out.kind = Kind::Bounds { code: Some(code), signed };
        let (x_role, y_role) = code.roles();
        let compared = self.agreed(reached, code, &x, &y);
        let at_call = (self.or_fixed(reached, x), self.or_fixed(reached, y));
        let mut push = |role, term: &Term, seen| out.operands.push(Operand { role, what: term.text(), seen });
        match &compared {
            Some(pair) => {
                push(x_role, &pair.x, Seen::Compare);
                match &pair.y {
                    Some(y) => push(y_role, y, Seen::Compare),
                    None => push(y_role, &at_call.1, Seen::Call),
                }
            }
            None => {
                push(x_role, &at_call.0, Seen::Call);
                push(y_role, &at_call.1, Seen::Call);
            }
        }
        let signed = reached.decisions.first().and_then(|d| d.comparison.as_ref()?.signed);
        let text = words::bounds_text(code, out, &at_call);
        out.words = words::bounds(code, out, compared.as_ref(), signed, (&text, &when));
    }

    fn or_fixed(&self, reached: &Reached<'_>, term: Term) -> Term {
        match term {
            Term::Register(r) => self.argument(reached, r).unwrap_or(term),
            _ => term,
        }
    }

    /// Returns what the check compares, if every path to the call compares the same values and passes them
    /// on.
    fn agreed(&self, reached: &Reached<'_>, code: BoundsCode, x: &Term, y: &Term) -> Option<Pair> {
        if reached.deciding.incomplete || !reached.deciding.plain.is_empty() {
            return None;
        }
        let mut all = reached.decisions.iter().map(|d| {
            let comparison = d.comparison.as_ref()?;
            let pair = check::bounds_pair(code, comparison)?;
            let passes =
                |a: &Term, b: &Term| check::is_passed(&self.body, d, a, b, &mut self.uses.borrow_mut());
            // A value that the compiler knows on this path is passed as a constant.
            let known = |passed: &Term| match passed {
                Term::Register(r) => matches!(self.fixed(&d.path, *r), Some(Term::Constant(_))),
                _ => true,
            };
            let (x_passes, y_passes) =
                (passes(&pair.x, x), pair.y.as_ref().is_none_or(|compared| passes(compared, y)));
            // The compiler's own checks are unsigned; for any other comparison both values must match.
            let folded = comparison.signed == Some(false) && (x_passes && known(y) || y_passes && known(x));
            (x_passes && y_passes || folded).then_some(pair)
        });
        let first = all.next()??;
        all.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }
}

fn describe_fault(fault: &Fault, out: &mut RaisedBy) {
    let seen = Seen::Fault;
    out.operands = match fault {
        Fault::Nil { .. } => {
            let pointer = |p| Operand { role: "pointer", what: register_text(p), seen };
            fault.pointers().map(pointer).collect()
        }
        Fault::Divide(divisor) => {
            out.kind = Kind::Divide;
            vec![Operand { role: "divisor", what: divisor.text(), seen }]
        }
    };
    out.words = words::fault(fault, &out.instruction);
}
