// Fuse serves a directory with one program on a FUSE file system whose server misbehaves, and measures how long execs of
// the machine take beside it. For a virtual machine: a fault can block every exec.
//
//	fuse serve DIR FILE stall    serves FILE as DIR/prog; each open takes 8 s
//	fuse serve DIR FILE call     the same; each open executes a program first
//	fuse measure TIME            prints the slowest exec of that time, in milliseconds
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/fuse.h
const (
	lookup, getattr, open, read, release = 1, 3, 14, 15, 18
	flush, initialize, opendir, releasedir = 25, 26, 27, 29
	forget, interrupt, batchForget, access = 2, 36, 42, 34
)

var le = binary.LittleEndian

// attributes writes a struct fuse_attr.
func attributes(b []byte, inode, size uint64, mode uint32) {
	le.PutUint64(b, inode)
	le.PutUint64(b[8:], size)
	le.PutUint32(b[60:], mode)
	le.PutUint32(b[64:], 1)
	le.PutUint32(b[80:], 4096)
}

type server struct {
	fd   int
	data []byte
	// atOpen runs before an open of the file is answered.
	atOpen func()
}

func (s *server) reply(unique uint64, errno int32, body []byte) {
	out := make([]byte, 16+len(body))
	le.PutUint32(out, uint32(len(out)))
	le.PutUint32(out[4:], uint32(-errno))
	le.PutUint64(out[8:], unique)
	copy(out[16:], body)
	syscall.Write(s.fd, out)
}

func (s *server) answer(b []byte) {
	opcode, unique, node := le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:])
	const file, directory = 0o100755, 0o40755
	switch opcode {
	case initialize:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[8:], 1<<16)
		le.PutUint32(out[20:], 1<<16)
		s.reply(unique, 0, out)
	case lookup:
		out := make([]byte, 128)
		le.PutUint64(out, 2)
		attributes(out[40:], 2, uint64(len(s.data)), file)
		s.reply(unique, 0, out)
	case getattr:
		out := make([]byte, 104)
		if node == 1 {
			attributes(out[16:], 1, 0, directory)
		} else {
			attributes(out[16:], 2, uint64(len(s.data)), file)
		}
		s.reply(unique, 0, out)
	case open:
		s.atOpen()
		s.reply(unique, 0, make([]byte, 16))
	case opendir:
		s.reply(unique, 0, make([]byte, 16))
	case read:
		offset, size := le.Uint64(b[48:]), uint64(le.Uint32(b[56:]))
		end := offset + size
		if end > uint64(len(s.data)) {
			end = uint64(len(s.data))
		}
		if offset > end {
			offset = end
		}
		s.reply(unique, 0, s.data[offset:end])
	case release, releasedir, flush, access:
		s.reply(unique, 0, nil)
	case forget, interrupt, batchForget:
	default:
		s.reply(unique, int32(syscall.ENOSYS), nil)
	}
}

func serve(directory, file string, atOpen func()) {
	data, err := os.ReadFile(file)
	check(err)
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR, 0)
	check(err)
	check(os.MkdirAll(directory, 0o755))
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	check(syscall.Mount("harm", directory, "fuse.harm", 0, options))
	fmt.Println("serving")
	s := &server{fd, data, atOpen}
	for {
		b := make([]byte, 1<<17+4096)
		n, err := syscall.Read(fd, b)
		switch err {
		case nil:
			go s.answer(b[:n])
		case syscall.EINTR, syscall.ENOENT, syscall.EAGAIN:
		default:
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	switch os.Args[1] {
	case "true":
	case "serve":
		atOpen := func() { time.Sleep(8 * time.Second) }
		if os.Args[4] == "call" {
			atOpen = func() { check(exec.Command(os.Args[0], "true").Run()) }
		}
		serve(os.Args[2], os.Args[3], atOpen)
	case "measure":
		length, err := time.ParseDuration(os.Args[2])
		check(err)
		var worst time.Duration
		for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			began := time.Now()
			check(exec.Command(os.Args[0], "true").Run())
			if took := time.Since(began); took > worst {
				worst = took
			}
		}
		fmt.Println(worst.Milliseconds())
	}
}
