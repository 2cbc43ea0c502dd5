//! Accounts in the formats that Go prints, shortened.

/// Three panics, two of them recovered; traceback level 1.
pub(crate) const CHAIN: &str = "program's own line
panic: two
\tlines [recovered]
\tpanic: main.T(\"x\") [recovered, repanicked]
\tpanic: last

goroutine 1 [running]:
main.main.func1()
\t/src/main.go:9 +0x25
panic({0x45c500?, 0x47b878?})
\t/go/src/runtime/panic.go:859 +0x125
main.inline(...)
\t/src/main.go:4
main.main()
\t/src/main.go:11 +0x52
";

/// A deep stack on a goroutine with a creator and an ancestor.
pub(crate) const DEEP: &str = "panic: bottom

goroutine 18 [running]:
main.(*T[...]).down(...)
\t/src/main.go:12
main.down(0x1?)
\t/src/main.go:14 +0x1b
...4951 frames elided...
main.down(0x1388?)
\t/a dir/main.go:14 +0x1b
created by main.main in goroutine 1
\t/src/main.go:5 +0x1a
[originating from goroutine 1]:
main.main(...)
\t/src/main.go:5 +0x1a
";

/// Thrown on the system stack; traceback level 2.
pub(crate) const THROW: &str = "runtime: goroutine stack exceeds 1474560-byte limit
runtime: sp=0x299e21eefcf0 stack=[0x299e21ee0000, 0x299e21fe0000]
fatal error: stack overflow

runtime stack:
runtime.throw({0x52f1f6?, 0x200000008?})
\t/go/src/runtime/panic.go:1243 +0x48 fp=0x7ffeb1d6b868 sp=0x7ffeb1d6b838 pc=0x4885c8

goroutine 1 gp=0x299e21cae1e0 m=0 mp=0x6a4f60 [running]:
main.f()
\t/src/main.go:81 +0x4b fp=0x299e21eefd00 sp=0x299e21eefcf8 pc=0x52764b
runtime.goexit({})
\t/go/src/runtime/asm_amd64.s:1700 +0x1 fp=0x299e21effd10 sp=0x299e21eefd00 pc=0x475381

goroutine 2 gp=0x299e21cae3c0 m=nil [force gc (idle)]:
runtime.gopark(0x0?, 0x0?)
\t/go/src/runtime/proc.go:435 +0xce fp=0x299e21eefd00 sp=0x299e21eefcf8 pc=0x46e06e
";

/// No goroutine was running: the one printed is merely the first.
pub(crate) const DEADLOCK: &str = "fatal error: all goroutines are asleep - deadlock!

goroutine 1 [select (no cases)]:
main.main()
\t/src/main.go:3 +0xf
";

/// A signal that is not turned into a panic.
pub(crate) const SIGNAL: &str = "SIGSEGV: segmentation violation
PC=0x4f5d58 m=0 sigcode=0 addr=0x5479
signal arrived during cgo execution

goroutine 21 gp=0xc000080700 m=0 mp=0x631bc0 [syscall]:
main.Segv.func1()
\t/src/segv.go:1 +0x18 fp=0xc00003ffe0 sp=0xc00003ffc8 pc=0x4f5d58
created by main.Segv in goroutine 1
\t/src/segv.go:19 +0x57

rax    0x0
rip    0x4f5d58
";

/// A nil dereference.
pub(crate) const FAULT: &str = "panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48d0a6]

goroutine 1 [running]:
main.main()
\t/src/main.go:7 +0x6
exit status 2
";

/// Output of a fixture about a panic that it recovered.
pub(crate) const TRUTH: &str = r#"{"type": "*errors.errorString", "text": "caught", "readable": true,
"stack": "goroutine 1 [running]:\nruntime/debug.Stack()\n\t/go/src/runtime/debug/stack.go:26 +0x5e\nmain.catch(0x1)\n\t/src/main.go:40 +0x65\npanic({0x1?, 0x2?})\n\t/go/src/runtime/panic.go:787 +0x132\nmain.helper()\n\t/src/main.go:47 +0x5d\nmain.main()\n\t/src/main.go:12 +0x1f\n",
"defers": [{"function": "main.helper.func1", "registered_by": "main.helper"}, {"function": "main.catch", "registered_by": "main.helper"}],
"recovered_by": "main.catch", "earlier": []}"#;
