// Listens on the Unix socket that is its argument and answers each connection with a number that it computes in a function
// that is probed. It panics and recovers all the time.
package main

import (
	"fmt"
	"net"
	"os"
)

//go:noinline
func depth(n int) int {
	if n == 0 {
		return 1
	}
	return depth(n-1) + 1
}

func raise() {
	defer func() { recover() }()
	panic("raised")
}

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			depth(10)
			raise()
		}
	}()
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(connection, depth(9)*1000)
		connection.Close()
	}
}
