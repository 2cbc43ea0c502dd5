//! Parses one frame: a function line and the tab-indented position below it.

use super::hex;

/// A frame as traceback2 prints it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FrameText {
    /// Name as printed, without the arguments.
    pub(crate) function: String,
    /// Whether the arguments were `(...)`: the call was inlined.
    pub(crate) inlined: bool,
    /// Path of the source file.
    pub(crate) file: String,
    /// Line in the source file.
    pub(crate) line: u32,
    /// Value of `+0x…`; absent for inlined frames and those stopped at their function's first instruction.
    pub(crate) offset: Option<u64>,
    /// Value of `pc=…`, printed at traceback level 2.
    pub(crate) pc: Option<u64>,
}

/// Parses the two lines of a frame.
pub(super) fn parse(call: &str, position: &str) -> Option<FrameText> {
    // Arguments contain no parenthesis, but names do: (*T).Method; so the last one opens the arguments.
    let arguments = call.strip_suffix(')')?;
    let (function, arguments) = arguments.split_at(arguments.rfind('(')?);
    let mut frame = parse_position(position)?;
    frame.function = function.to_owned();
    frame.inlined = arguments == "(..." && frame.offset.is_none();
    Some(frame)
}

/// Parses `\tfile:line[ +0x…][ fp=0x… sp=0x… pc=0x…]`.
pub(super) fn parse_position(line: &str) -> Option<FrameText> {
    let mut rest = line.strip_prefix('\t')?;
    let mut frame = FrameText::default();
    while let Some((head, word)) = rest.rsplit_once(' ') {
        if let Some(offset) = word.strip_prefix('+') {
            frame.offset = Some(hex(offset)?);
        } else if let Some(pc) = word.strip_prefix("pc=") {
            frame.pc = Some(hex(pc)?);
        } else if !word.starts_with("sp=") && !word.starts_with("fp=") {
            break;
        }
        rest = head;
    }
    let (file, number) = rest.rsplit_once(':')?;
    frame.file = file.to_owned();
    frame.line = number.parse().ok()?;
    Some(frame)
}
