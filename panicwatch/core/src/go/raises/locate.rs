//! Maps any address in a function to the instruction that raises there.

use iced_x86::Instruction;

use super::{
    RaisedBy, Unknown, check,
    describe::Scan,
    fault,
    term::{self},
};

/// Returns what raises at `pc`.
pub(super) fn locate(scan: &Scan<'_>, pc: u64) -> Result<RaisedBy, Unknown> {
    let Some(i) = scan.body.holding(pc) else {
        return Err(Unknown(format!("no instruction begins at {pc:#x}")));
    };
    let exact = scan.body.get(i).is_some_and(|code| code.ip() == pc);
    let mut found: Vec<(usize, Option<usize>)> = Vec::new();
    let mut add = |place: usize, focus: Option<usize>| {
        if !found.iter().any(|f| f.0 == place) {
            found.push((place, focus));
        }
    };
    let is_call = |i: usize| scan.calls.contains_key(&i);
    let returns = |b: &usize| scan.body.get(*b).is_some_and(Instruction::is_call_near);
    let before = i.checked_sub(1).filter(|_| exact).filter(returns);
    // A call that always raises does not return: the address after it can only be a return address.
    if let Some(b) = before.filter(|b| scan.always(*b)) {
        add(b, None);
    }
    if scan.always(i) {
        add(i, None);
    }
    let jumps = if is_jump(scan, i) { vec![i] } else { check::jumps_of(&scan.body, i) };
    for jump in jumps {
        for place in decided_by(scan, jump) {
            add(place, Some(jump));
        }
    }
    if let Some(b) = before.filter(|b| is_call(*b)) {
        add(b, None);
    }
    if is_call(i) || scan.fault(i).is_some() {
        add(i, None);
    }
    if let Ok(place) = scan.body.ahead(i, &|j| scan.always(j)) {
        add(place, None);
    }
    let mut said = found.into_iter().filter_map(|(place, focus)| scan.describe(place, focus));
    match said.next() {
        Some(mut first) => {
            first.otherwise = said.next().map(Box::new);
            Ok(first)
        }
        None => Err(nothing(scan, i)),
    }
}

fn is_jump(scan: &Scan<'_>, i: usize) -> bool {
    scan.body.get(i).is_some_and(Instruction::is_jcc_short_or_near)
}

/// Returns the calls that a conditional jump decides: those reached when it is taken and when it is not; if
/// there are none, those reached after branches that merge again.
fn decided_by(scan: &Scan<'_>, jump: usize) -> Vec<usize> {
    let arms = scan.body.arms(jump).unwrap_or_default();
    let always = |j: usize| scan.always(j);
    let mut out: Vec<_> =
        arms.into_iter().flatten().filter_map(|arm| scan.body.ahead(arm, &always).ok()).collect();
    if out.is_empty() {
        out = scan.calls.keys().copied().filter(|i| always(*i) && scan.decides(jump, *i)).collect();
    }
    out
}

/// Returns the reason why instruction `i` raises nothing.
fn nothing(scan: &Scan<'_>, i: usize) -> Unknown {
    let Some(instruction) = scan.body.get(i) else { return Unknown("no instruction begins there".into()) };
    let (at, text) = (instruction.ip(), term::text(instruction));
    let what = if let Some(target) = scan.body.leaves_for(i) {
        let name = scan.image.function_at(target).map(|n| crate::incident::escape::one_line(&n));
        let name = name.unwrap_or_else(|| format!("the code at {target:#x}"));
        format!(
            "{text} at {at:#x} calls {name}, which is not one of the functions that raise; the functions that it \
             calls were not analyzed"
        )
    } else if instruction.is_call_near_indirect() {
        format!("{text} at {at:#x} is an indirect call, whose target is known only at run time")
    } else if fault::touches_memory(instruction) {
        format!(
            "{text} at {at:#x} uses memory whose address cannot be nil: on the stack, of the goroutine itself, at a \
             fixed address or too far from nil"
        )
    } else {
        format!("{text} at {at:#x} raises nothing")
    };
    let next = match scan.body.ahead(i, &|j| scan.always(j)) {
        Err(Some(jump)) if jump != i => decided_by(scan, jump).into_iter().next().map(|raise| (jump, raise)),
        _ => None,
    };
    let (jump, raise) = next.map_or((None, None), |(j, r)| (scan.body.get(j), scan.body.get(r)));
    match jump.zip(raise) {
        Some((jump, raise)) => Unknown(format!(
            "{what}; the next check is {} at {:#x}, for the call at {:#x}",
            term::text(jump),
            jump.ip(),
            raise.ip()
        )),
        None => Unknown(what),
    }
}
