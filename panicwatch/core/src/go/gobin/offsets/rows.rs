//! The rows of the layout table: one line per field, one column per Go minor release.
//!
//! Columns: the releases of [`RELEASES`]; `_` where that release lacks the field. Extracted from the DWARF of
//! linux/amd64 programs built by those releases; arm64 does not differ. The string after each name is the
//! field's Go path, with `|` between its names in different releases. The structs themselves:
//! - <https://github.com/golang/go/blob/go1.19.8/src/runtime/runtime2.go> …
//!   <https://github.com/golang/go/blob/go1.24.11/src/runtime/runtime2.go> (g, m, _panic, _defer)
//! - <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> (moduledata)
//! - <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go>,
//!   <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/iface.go>
//! - <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (initTask),
//!   <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go> (panic values)

use super::{RELEASES, layout};

layout! {
    /// The runtime's struct of a goroutine.
    G = "runtime.g",
    every {
        stack_lo "stack.lo"         [   0,    0,    0,    0,    0,    0,    0,    0];
        stack_hi "stack.hi"         [   8,    8,    8,    8,    8,    8,    8,    8];
        stackguard0 "stackguard0"   [  16,   16,   16,   16,   16,   16,   16,   16];
        panic "_panic"              [  32,   32,   32,   32,   32,   32,   32,   32];
        defer "_defer"              [  40,   40,   40,   40,   40,   40,   40,   40];
        m "m"                       [  48,   48,   48,   48,   48,   48,   48,   48];
        sched_sp "sched.sp"         [  56,   56,   56,   56,   56,   56,   56,   56];
        sched_pc "sched.pc"         [  64,   64,   64,   64,   64,   64,   64,   64];
        sched_g "sched.g"           [  72,   72,   72,   72,   72,   72,   72,   72];
        syscallsp "syscallsp"       [ 112,  112,  112,  112,  112,  104,  104,  104];
        syscallpc "syscallpc"       [ 120,  120,  120,  120,  120,  112,  112,  112];
        atomicstatus "atomicstatus" [ 144,  144,  144,  152,  152,  144,  144,  144];
        goid "goid"                 [ 152,  152,  152,  160,  160,  152,  152,  152];
        waitreason "waitreason"     [ 176,  176,  176,  184,  184,  176,  176,  176];
        tracking_seq "trackingSeq"  [ 189,  188,  191,  199,  199,  191,  191,  191];
        lockedm "lockedm"           [ 232,  208,  208,  216,  216,  208,  208,  208];
        sig "sig"                   [ 240,  216,  216,  224,  228,  220,  224,  224];
        sigcode0 "sigcode0"         [ 272,  248,  248,  256,  256,  248,  256,  256];
        gopc "gopc"                 [ 296,  280,  280,  288,  288,  280,  288,  288];
        ancestors "ancestors"       [ 304,  288,  288,  296,  296,  288,  296,  296];
        startpc "startpc"           [ 312,  296,  296,  304,  304,  296,  304,  304];
        labels "labels"             [ 360,  344,  344,  352,  352,  344,  352,  352];
    }
    some {
        parent_goid "parentGoid"    [   _,  272,  272,  280,  280,  272,  280,  280];
    }
}

layout! {
    /// An OS thread.
    M = "runtime.m",
    every {
        procid "procid"         [  72,   72,   72,   72,   72,   64,   64,   64];
        curg "curg"             [ 192,  192,  192,  192,  192,  184,  184,  184];
        p "p"                   [ 208,  208,  208,  208,  208,  200,  208,  208];
        throwing "throwing"     [ 244,  244,  244,  244,  244,  236,  244,  244];
        incgo "incgo"           [ 280,  280,  280,  280,  280,  272,  280,  280];
    }
    some {
    }
}

layout! {
    /// A panic in progress.
    Panic = "runtime._panic",
    every {
        arg "arg"                     [   8,    8,    8,    8,    8,    8,    0,    0];
        link "link"                   [  24,   24,   24,   24,   24,   24,   16,   16];
        sp "sp"                       [  40,   40,   48,   48,   48,   48,   40,   48];
        recovered "recovered"         [  48,   48,   96,   96,   96,   96,   88,   88];
        goexit "goexit"               [  50,   50,   97,   97,   97,   98,   90,   90];
    }
    some {
        argp "argp"                   [   0,    0,    0,    0,    0,    0,    _,    _];
        retpc "retpc"                 [   _,    _,   72,   72,   72,   72,   64,   64];
    }
}

layout! {
    /// A deferred call.
    Defer = "runtime._defer",
    every {
        heap "heap"            [   1,    1,    0,    0,    0,    0,    0,    0];
        sp "sp"                [   8,    8,    8,    8,    8,    8,    8,    8];
        pc "pc"                [  16,   16,   16,   16,   16,   16,   16,   16];
        fn_ "fn"               [  24,   24,   24,   24,   24,   24,   24,   24];
        link "link"            [  40,   40,   32,   32,   32,   32,   32,   32];
    }
    some {
        started "started"      [   0,    0,    _,    _,    _,    _,    _,    _];
        open_defer "openDefer" [   2,    2,    _,    _,    _,    _,    _,    _];
        rangefunc "rangefunc"  [   _,    _,    1,    1,    1,    1,    1,    1];
        head "head"            [   _,    _,   40,   40,   40,   40,   40,   40];
        framepc "framepc"      [  64,   64,    _,    _,    _,    _,    _,    _];
    }
}

layout! {
    /// Linker-generated description of one module for the runtime.
    ModuleData = "runtime.moduledata",
    every {
        pc_header "pcHeader"      [   0,    0,    0,    0,    0,    0,    0,    0];
        funcnametab "funcnametab" [   8,    8,    8,    8,    8,    8,    8,    8];
        ftab "ftab"               [ 128,  128,  128,  128,  128,  128,  128,  128];
        minpc "minpc"             [ 160,  160,  160,  160,  160,  160,  160,  160];
        text "text"               [ 176,  176,  176,  176,  176,  176,  176,  176];
        etext "etext"             [ 184,  184,  184,  184,  184,  184,  184,  184];
        noptrdata "noptrdata"     [ 192,  192,  192,  192,  192,  192,  192,  192];
        enoptrdata "enoptrdata"   [ 200,  200,  200,  200,  200,  200,  200,  200];
        data "data"               [ 208,  208,  208,  208,  208,  208,  208,  208];
        edata "edata"             [ 216,  216,  216,  216,  216,  216,  216,  216];
        bss "bss"                 [ 224,  224,  224,  224,  224,  224,  224,  224];
        ebss "ebss"               [ 232,  232,  232,  232,  232,  232,  232,  232];
        noptrbss "noptrbss"       [ 240,  240,  240,  240,  240,  240,  240,  240];
        enoptrbss "enoptrbss"     [ 248,  248,  248,  248,  248,  248,  248,  248];
        types "types"             [ 280,  296,  296,  296,  296,  296,  296,  296];
        etypes "etypes"           [ 288,  304,  304,  304,  304,  304,  304,  312];
        rodata "rodata"           [ 296,  312,  312,  312,  312,  312,  312,  336];
        gofunc "gofunc"           [ 304,  320,  320,  320,  320,  320,  320,  344];
        textsectmap "textsectmap" [ 312,  328,  328,  328,  328,  328,  336,  360];
        size "sizeof"             [ 552,  592,  592,  584,  584,  584,  592,  568];
    }
    some {
        inittasks "inittasks"     [   _,  464,  464,  464,  464,  464,  472,  448];
    }
}

layout! {
    /// Common prefix of all type descriptors (runtime._type up to 1.20).
    Type = "internal/abi.Type",
    every {
        value_size "Size_|size"           [   0,    0,    0,    0,    0,    0,    0,    0];
        tflag "TFlag|tflag"               [  20,   20,   20,   20,   20,   20,   20,   20];
        kind "Kind_|kind"                 [  23,   23,   23,   23,   23,   23,   23,   23];
        str "Str|str"                     [  40,   40,   40,   40,   40,   40,   40,   40];
        ptr_to_this "PtrToThis|ptrToThis" [  44,   44,   44,   44,   44,   44,   44,   44];
        size "sizeof"                     [  48,   48,   48,   48,   48,   48,   48,   48];
    }
    some {

    }
}

layout! {
    /// Package path and methods, stored after the descriptor of a type that has them.
    Uncommon = "internal/abi.UncommonType",
    every {
        pkg_path "PkgPath|pkgpath" [   0,    0,    0,    0,    0,    0,    0,    0];
        mcount "Mcount|mcount"     [   4,    4,    4,    4,    4,    4,    4,    4];
        moff "Moff|moff"           [   8,    8,    8,    8,    8,    8,    8,    8];
    }
    some {

    }
}

layout! {
    /// An interface table (runtime.itab up to 1.22).
    Itab = "internal/abi.ITab",
    every {
        type_ "Type|_type"  [   8,    8,    8,    8,    8,    8,    8,    8];
    }
    some {

    }
}

layout! {
    /// Initialization task of one package.
    InitTask = "runtime.initTask",
    every {
        state "state" [   0,    0,    0,    0,    0,    0,    0,    0];
        nfns "nfns"   [  16,    4,    4,    4,    4,    4,    4,    4];
        size "sizeof" [  24,    8,    8,    8,    8,    8,    8,    8];
    }
    some {
        ndeps "ndeps" [   8,    _,    _,    _,    _,    _,    _,    _];
    }
}

layout! {
    /// A creator recorded by GODEBUG=tracebackancestors.
    AncestorInfo = "runtime.ancestorInfo",
    every {
        goid "goid"   [  24,   24,   24,   24,   24,   24,   24,   24];
        gopc "gopc"   [  32,   32,   32,   32,   32,   32,   32,   32];
        size "sizeof" [  40,   40,   40,   40,   40,   40,   40,   40];
    }
    some {

    }
}

layout! {
    /// Panic value of a failed bounds check.
    BoundsError = "runtime.boundsError",
    every {
        x "x"           [   0,    0,    0,    0,    0,    0,    0,    0];
        y "y"           [   8,    8,    8,    8,    8,    8,    8,    8];
        signed "signed" [  16,   16,   16,   16,   16,   16,   16,   16];
        code "code"     [  17,   17,   17,   17,   17,   17,   17,   17];
    }
    some {

    }
}

layout! {
    /// Panic value of a failed type assertion.
    TypeAssertionError = "runtime.TypeAssertionError",
    every {
        interface "_interface"         [   0,    0,    0,    0,    0,    0,    0,    0];
        concrete "concrete"            [   8,    8,    8,    8,    8,    8,    8,    8];
        asserted "asserted"            [  16,   16,   16,   16,   16,   16,   16,   16];
        missing_method "missingMethod" [  24,   24,   24,   24,   24,   24,   24,   24];
    }
    some {

    }
}
