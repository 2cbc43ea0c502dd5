//! The rows of the layout table: one line per field, one column per Go minor release.
//!
//! Columns: the releases of [`RELEASES`]; `_` where that release lacks the field. Extracted from the DWARF of
//! linux/amd64 programs built by those releases; arm64 differs only in the size of runtime.p. The string after each name is the field's Go
//! path, with `|` between its names in different releases. The structs themselves:
//! - <https://github.com/golang/go/blob/go1.19.8/src/runtime/runtime2.go> …
//!   <https://github.com/golang/go/blob/go1.24.11/src/runtime/runtime2.go> (g, m, p, _panic, _defer, sudog)
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
        sched_ctxt "sched.ctxt"     [  80,   80,   80,   80,   80,   80,   80,   80];
        sched_bp "sched.bp"         [ 104,  104,  104,  104,  104,   96,   96,   96];
        syscallsp "syscallsp"       [ 112,  112,  112,  112,  112,  104,  104,  104];
        syscallpc "syscallpc"       [ 120,  120,  120,  120,  120,  112,  112,  112];
        stktopsp "stktopsp"         [ 128,  128,  128,  136,  136,  128,  128,  128];
        param "param"               [ 136,  136,  136,  144,  144,  136,  136,  136];
        atomicstatus "atomicstatus" [ 144,  144,  144,  152,  152,  144,  144,  144];
        goid "goid"                 [ 152,  152,  152,  160,  160,  152,  152,  152];
        schedlink "schedlink"       [ 160,  160,  160,  168,  168,  160,  160,  160];
        waitsince "waitsince"       [ 168,  168,  168,  176,  176,  168,  168,  168];
        waitreason "waitreason"     [ 176,  176,  176,  184,  184,  176,  176,  176];
        paniconfault "paniconfault" [ 181,  181,  181,  189,  189,  181,  181,  181];
        tracking_seq "trackingSeq"  [ 189,  188,  191,  199,  199,  191,  191,  191];
        lockedm "lockedm"           [ 232,  208,  208,  216,  216,  208,  208,  208];
        sig "sig"                   [ 240,  216,  216,  224,  228,  220,  224,  224];
        sigcode0 "sigcode0"         [ 272,  248,  248,  256,  256,  248,  256,  256];
        sigcode1 "sigcode1"         [ 280,  256,  256,  264,  264,  256,  264,  264];
        sigpc "sigpc"               [ 288,  264,  264,  272,  272,  264,  272,  272];
        gopc "gopc"                 [ 296,  280,  280,  288,  288,  280,  288,  288];
        ancestors "ancestors"       [ 304,  288,  288,  296,  296,  288,  296,  296];
        startpc "startpc"           [ 312,  296,  296,  304,  304,  296,  304,  304];
        waiting "waiting"           [ 328,  312,  312,  320,  320,  312,  320,  320];
        cgo_ctxt "cgoCtxt"          [ 336,  320,  320,  328,  328,  320,  328,  328];
        labels "labels"             [ 360,  344,  344,  352,  352,  344,  352,  352];
        size "sizeof"               [ 392,  408,  424,  432,  440,  440,  456,  456];
    }
    some {
        syscallbp "syscallbp"       [   _,    _,    _,  128,  128,  120,  120,  120];
        parent_goid "parentGoid"    [   _,  272,  272,  280,  280,  272,  280,  280];
        coroarg "coroarg"           [   _,    _,  368,  384,  384,  376,  384,  384];
        bubble "bubble|syncGroup"   [   _,    _,    _,    _,  392,  384,  392,  392];
    }
}

layout! {
    /// An OS thread.
    M = "runtime.m",
    every {
        g0 "g0"                 [   0,    0,    0,    0,    0,    0,    0,    0];
        procid "procid"         [  72,   72,   72,   72,   72,   64,   64,   64];
        gsignal "gsignal"       [  80,   80,   80,   80,   80,   72,   72,   72];
        curg "curg"             [ 192,  192,  192,  192,  192,  184,  184,  184];
        caughtsig "caughtsig"   [ 200,  200,  200,  200,  200,  192,  192,  192];
        p "p"                   [ 208,  208,  208,  208,  208,  200,  208,  208];
        nextp "nextp"           [ 216,  216,  216,  216,  216,  208,  216,  216];
        oldp "oldp"             [ 224,  224,  224,  224,  224,  216,  224,  224];
        id "id"                 [ 232,  232,  232,  232,  232,  224,  232,  232];
        mallocing "mallocing"   [ 240,  240,  240,  240,  240,  232,  240,  240];
        throwing "throwing"     [ 244,  244,  244,  244,  244,  236,  244,  244];
        preemptoff "preemptoff" [ 248,  248,  248,  248,  248,  240,  248,  248];
        locks "locks"           [ 264,  264,  264,  264,  264,  256,  264,  264];
        dying "dying"           [ 268,  268,  268,  268,  268,  260,  268,  268];
        spinning "spinning"     [ 276,  276,  276,  276,  276,  268,  276,  276];
        blocked "blocked"       [ 277,  277,  277,  277,  277,  269,  277,  277];
        incgo "incgo"           [ 280,  280,  280,  280,  280,  272,  280,  280];
        ncgo "ncgo"             [ 312,  312,  304,  304,  328,  320,  328,  328];
        alllink "alllink"       [ 336,  336,  328,  328,  352,  344,  352,  352];
        lockedg "lockedg"       [ 352,  352,  344,  344,  368,  360,  384,  384];
        vdso_sp "vdsoSP"        [ 800,  808, 1120,  856,  904,  896,  896,  896];
        vdso_pc "vdsoPC"        [ 808,  816, 1128,  864,  912,  904,  904,  904];
        libcallg "libcallg"     [ 744,  752, 1064,  848,  896,  888,  888,  888];
        libcallpc "libcallpc"   [ 728,  736, 1048,  832,  880,  872,  872,  872];
        libcallsp "libcallsp"   [ 736,  744, 1056,  840,  888,  880,  880,  880];
        size "sizeof"           [1008, 1008, 2024, 1760, 1832, 1816, 1824, 1832];
    }
    some {
        isextra "isextra"       [   _,  281,  281,  281,  281,  273,  281,  281];
    }
}

layout! {
    /// A processor: the resource required to run Go code.
    P = "runtime.p",
    every {
        id "id"                   [   0,    0,    0,    0,    0,    0,    0,    0];
        status "status"           [   4,    4,    4,    4,    4,    4,    4,    4];
        schedtick "schedtick"     [  16,   16,   16,   16,   16,   16,   16,   16];
        syscalltick "syscalltick" [  20,   20,   20,   20,   20,   20,   20,   20];
        m "m"                     [  56,   56,   56,   48,   48,   48,   48,   48];
        runqhead "runqhead"       [ 400,  400,  400,  392,  392,  392,  400,  400];
        runqtail "runqtail"       [ 404,  404,  404,  396,  396,  396,  404,  404];
        runnext "runnext"         [2456, 2456, 2456, 2448, 2448, 2448, 2456, 2456];
        size "sizeof"             [8912, 8912, 8944, 8944, 8952, 9512, 15920, 15920];
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
        lr "lr|pc"                    [  32,   32,   56,   56,   56,   56,   48,   40];
        recovered "recovered"         [  48,   48,   96,   96,   96,   96,   88,   88];
        goexit "goexit"               [  50,   50,   97,   97,   97,   98,   90,   90];
        size "sizeof"                 [  56,   56,  104,  104,  104,  104,  104,   96];
    }
    some {
        argp "argp"                   [   0,    0,    0,    0,    0,    0,    _,    _];
        start_pc "startPC"            [   _,    _,   32,   32,   32,   32,   24,   24];
        start_sp "startSP"            [   _,    _,   40,   40,   40,   40,   32,   32];
        fp "fp"                       [   _,    _,   64,   64,   64,   64,   56,   56];
        retpc "retpc"                 [   _,    _,   72,   72,   72,   72,   64,   64];
        defer_bits_ptr "deferBitsPtr" [   _,    _,   80,   80,   80,   80,   72,   72];
        slots_ptr "slotsPtr"          [   _,    _,   88,   88,   88,   88,   80,   80];
        repanicked "repanicked"       [   _,    _,    _,    _,    _,   97,   89,   89];
        aborted "aborted"             [  49,   49,    _,    _,    _,    _,    _,    _];
        deferreturn "deferreturn"     [   _,    _,   98,   98,   98,   99,   91,   91];
        gopanic_fp "gopanicFP"        [   _,    _,    _,    _,    _,    _,   96,    _];
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
        size "sizeof"          [  72,   72,   48,   48,   48,   48,   48,   48];
    }
    some {
        started "started"      [   0,    0,    _,    _,    _,    _,    _,    _];
        open_defer "openDefer" [   2,    2,    _,    _,    _,    _,    _,    _];
        rangefunc "rangefunc"  [   _,    _,    1,    1,    1,    1,    1,    1];
        panic "_panic"         [  32,   32,    _,    _,    _,    _,    _,    _];
        head "head"            [   _,    _,   40,   40,   40,   40,   40,   40];
        fd "fd"                [  48,   48,    _,    _,    _,    _,    _,    _];
        varp "varp"            [  56,   56,    _,    _,    _,    _,    _,    _];
        framepc "framepc"      [  64,   64,    _,    _,    _,    _,    _,    _];
    }
}

layout! {
    /// Linker-generated description of one module for the runtime.
    ModuleData = "runtime.moduledata",
    every {
        pc_header "pcHeader"      [   0,    0,    0,    0,    0,    0,    0,    0];
        funcnametab "funcnametab" [   8,    8,    8,    8,    8,    8,    8,    8];
        cutab "cutab"             [  32,   32,   32,   32,   32,   32,   32,   32];
        filetab "filetab"         [  56,   56,   56,   56,   56,   56,   56,   56];
        pctab "pctab"             [  80,   80,   80,   80,   80,   80,   80,   80];
        pclntable "pclntable"     [ 104,  104,  104,  104,  104,  104,  104,  104];
        ftab "ftab"               [ 128,  128,  128,  128,  128,  128,  128,  128];
        findfunctab "findfunctab" [ 152,  152,  152,  152,  152,  152,  152,  152];
        minpc "minpc"             [ 160,  160,  160,  160,  160,  160,  160,  160];
        maxpc "maxpc"             [ 168,  168,  168,  168,  168,  168,  168,  168];
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
        end "end"                 [ 256,  272,  272,  272,  272,  272,  272,  272];
        types "types"             [ 280,  296,  296,  296,  296,  296,  296,  296];
        etypes "etypes"           [ 288,  304,  304,  304,  304,  304,  304,  312];
        rodata "rodata"           [ 296,  312,  312,  312,  312,  312,  312,  336];
        gofunc "gofunc"           [ 304,  320,  320,  320,  320,  320,  320,  344];
        textsectmap "textsectmap" [ 312,  328,  328,  328,  328,  328,  336,  360];
        pluginpath "pluginpath"   [ 408,  424,  424,  424,  424,  424,  432,  408];
        modulename "modulename"   [ 448,  488,  488,  488,  488,  488,  496,  472];
        hasmain "hasmain"         [ 488,  528,  528,  528,  528,  528,  536,  512];
        bad "bad"                 [ 536,  576,  576,  529,  529,  529,  537,  513];
        next "next"               [ 544,  584,  584,  576,  576,  576,  584,  560];
        size "sizeof"             [ 552,  592,  592,  584,  584,  584,  592,  568];
    }
    some {
        typedesclen "typedesclen" [   _,    _,    _,    _,    _,    _,    _,  304];
        itaboffset "itaboffset"   [   _,    _,    _,    _,    _,    _,    _,  320];
        itabsize "itabsize"       [   _,    _,    _,    _,    _,    _,    _,  328];
        epclntab "epclntab"       [   _,    _,    _,    _,    _,    _,  328,  352];
        typelinks "typelinks"     [ 336,  352,  352,  352,  352,  352,  360,    _];
        itablinks "itablinks"     [ 360,  376,  376,  376,  376,  376,  384,    _];
        inittasks "inittasks"     [   _,  464,  464,  464,  464,  464,  472,  448];
    }
}

layout! {
    /// Common prefix of all type descriptors (runtime._type up to 1.20).
    Type = "internal/abi.Type",
    every {
        value_size "Size_|size"           [   0,    0,    0,    0,    0,    0,    0,    0];
        ptr_bytes "PtrBytes|ptrdata"      [   8,    8,    8,    8,    8,    8,    8,    8];
        hash "Hash|hash"                  [  16,   16,   16,   16,   16,   16,   16,   16];
        tflag "TFlag|tflag"               [  20,   20,   20,   20,   20,   20,   20,   20];
        align "Align_|align"              [  21,   21,   21,   21,   21,   21,   21,   21];
        kind "Kind_|kind"                 [  23,   23,   23,   23,   23,   23,   23,   23];
        equal "Equal|equal"               [  24,   24,   24,   24,   24,   24,   24,   24];
        gc_data "GCData|gcdata"           [  32,   32,   32,   32,   32,   32,   32,   32];
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
        xcount "Xcount|xcount"     [   6,    6,    6,    6,    6,    6,    6,    6];
        moff "Moff|moff"           [   8,    8,    8,    8,    8,    8,    8,    8];
        size "sizeof"              [  16,   16,   16,   16,   16,   16,   16,   16];
    }
    some {

    }
}

layout! {
    /// An interface table (runtime.itab up to 1.22).
    Itab = "internal/abi.ITab",
    every {
        inter "Inter|inter" [   0,    0,    0,    0,    0,    0,    0,    0];
        type_ "Type|_type"  [   8,    8,    8,    8,    8,    8,    8,    8];
        hash "Hash|hash"    [  16,   16,   16,   16,   16,   16,   16,   16];
        fun "Fun|fun"       [  24,   24,   24,   24,   24,   24,   24,   24];
        size "sizeof"       [  32,   32,   32,   32,   32,   32,   32,   32];
    }
    some {

    }
}

layout! {
    /// A goroutine in a wait list, such as that of a channel.
    Sudog = "runtime.sudog",
    every {
        g "g"                [   0,    0,    0,    0,    0,    0,    0,    0];
        next "next"          [   8,    8,    8,    8,    8,    8,    8,    8];
        elem "elem"          [  24,   24,   24,   24,   24,   24,   24,   24];
        is_select "isSelect" [  52,   52,   52,   52,   52,   52,   60,   60];
        waitlink "waitlink"  [  64,   64,   64,   64,   64,   64,   72,   72];
        c "c"                [  80,   80,   80,   80,   80,   80,   88,   88];
        size "sizeof"        [  88,   88,   88,   88,   88,   88,  104,  104];
    }
    some {

    }
}

layout! {
    /// The runtime's struct of a channel.
    Hchan = "runtime.hchan",
    every {
        qcount "qcount"     [   0,    0,    0,    0,    0,    0,    0,    0];
        dataqsiz "dataqsiz" [   8,    8,    8,    8,    8,    8,    8,    8];
        elemsize "elemsize" [  24,   24,   24,   24,   24,   24,   24,   24];
        closed "closed"     [  28,   28,   28,   28,   28,   28,   28,   28];
        elemtype "elemtype" [  32,   32,   32,   40,   40,   40,   40,   40];
        size "sizeof"       [  96,   96,   96,  104,  104,  112,  112,  112];
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
        pcs "pcs"     [   0,    0,    0,    0,    0,    0,    0,    0];
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
        size "sizeof"   [  24,   24,   24,   24,   24,   24,   24,   24];
    }
    some {

    }
}

layout! {
    /// Panic value of a fault under SetPanicOnFault.
    ErrorAddressString = "runtime.errorAddressString",
    every {
        msg "msg"     [   0,    0,    0,    0,    0,    0,    0,    0];
        addr "addr"   [  16,   16,   16,   16,   16,   16,   16,   16];
        size "sizeof" [  24,   24,   24,   24,   24,   24,   24,   24];
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
        size "sizeof"                  [  40,   40,   40,   40,   40,   40,   40,   40];
    }
    some {

    }
}
