package main

import (
	"runtime"
	"syscall"
	"unsafe"
)

// Numbers of x86-64: bpf, perf_event_open, ptrace, process_vm_readv, uretprobe, uprobe.
var refused = []uint32{321, 298, 101, 310, 335, 336}

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// confine makes the kernel answer the refused system calls with EPERM, in all threads.
// https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
func confine() {
	const (
		loadWord    = 0x20 // BPF_LD | BPF_W | BPF_ABS: the number of the system call
		jumpIfEqual = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
		answer      = 0x06 // BPF_RET | BPF_K
		allow       = 0x7fff0000
		eperm       = 0x00050000 | 1
	)
	program := []instruction{{code: loadWord}}
	for i, number := range refused {
		program = append(program, instruction{code: jumpIfEqual, jt: uint8(len(refused) - i), k: number})
	}
	program = append(program, instruction{code: answer, k: allow}, instruction{code: answer, k: eperm})
	filter := struct {
		length uint16
		first  *instruction
	}{uint16(len(program)), &program[0]}
	const noNewPrivileges, seccomp, setFilter, allThreads = 38, 317, 1, 1
	if _, _, errno := syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, noNewPrivileges, 1, 0, 0, 0, 0); errno != 0 {
		panic(errno)
	}
	if _, _, errno := syscall.Syscall(seccomp, setFilter, allThreads, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		panic(errno)
	}
	runtime.KeepAlive(program)
}
