// A program that recovers from so many panics and, with a second argument, then dies of one.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func one(i int) {
	defer func() { recover() }()
	panic(fmt.Sprint("order ", i))
}

func main() {
	n, _ := strconv.Atoi(os.Args[1])
	// So long that the first run of the binary is seen, too.
	time.Sleep(2 * time.Second)
	for i := 0; i < n; i++ {
		one(i)
	}
	if len(os.Args) > 2 {
		var m map[string]int
		m["x"] = 1
	}
}
