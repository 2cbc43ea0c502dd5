// Book recovers from a number of panics in a number of goroutines and prints how many there were; it can then end in
// one of several ways. What it prints is compared with what panicwatch reports.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var (
	panics     = flag.Int("panics", 100, "panics to recover from, in all")
	goroutines = flag.Int("goroutines", 4, "goroutines that panic")
	idle       = flag.Int("idle", 0, "goroutines that wait until the end")
	pause      = flag.Duration("pause", 0, "time between two panics of a goroutine")
	begin      = flag.Duration("begin", 0, "time before the first panic")
	input      = flag.Bool("input", false, "begin when standard input ends")
	confined   = flag.Bool("seccomp", false, "install a seccomp filter first")
	end        = flag.String("end", "exit", "exit, panic, nil, deadlock")
)

type order struct {
	Customer *order
	Number   int
}

var recovered atomic.Int64

// one panics in one of the ways programs do.
func one(n int) {
	defer func() {
		if recover() != nil {
			recovered.Add(1)
		}
	}()
	switch n % 5 {
	case 0:
		panic(fmt.Sprint("order ", n))
	case 1:
		panic(errors.New("no such order"))
	case 2:
		var o *order
		fmt.Fprintln(io.Discard, o.Customer.Number)
	case 3:
		numbers := make([]int, 3)
		fmt.Fprintln(io.Discard, numbers[n%5+3])
	case 4:
		var v any = "text"
		fmt.Fprintln(io.Discard, v.(int))
	}
}

func main() {
	flag.Parse()
	if *confined {
		confine()
	}
	stop := make(chan struct{})
	for i := 0; i < *idle; i++ {
		go func() { <-stop }()
	}
	time.Sleep(*begin)
	if *input {
		io.Copy(io.Discard, os.Stdin)
	}
	var all sync.WaitGroup
	for g := 0; g < *goroutines; g++ {
		all.Add(1)
		go func(g int) {
			defer all.Done()
			for n := g; n < *panics; n += *goroutines {
				one(n)
				time.Sleep(*pause)
			}
		}(g)
	}
	all.Wait()
	fmt.Println("recovered", recovered.Load())
	switch *end {
	case "panic":
		panic("the end")
	case "nil":
		var o *order
		fmt.Println(o.Customer.Number)
	case "deadlock":
		all.Add(1)
		all.Wait()
	}
	os.Exit(7)
}
