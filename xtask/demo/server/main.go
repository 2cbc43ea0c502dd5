// Command server is what `cargo xtask demo` watches: a small order service that panics the way real
// services do. It drives itself with its own client, so it needs no network beyond loopback.
//
// Three requests panic and are recovered: by a middleware, by net/http (the client sends that one
// twice), and after a middleware has panicked again. The fourth leaves work behind on a goroutine
// that nobody recovers, and the process dies.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// An order as a client sends it.
type order struct {
	ID       int
	Customer *customer
	Items    []item
}

type customer struct{ Name string }

type item struct {
	SKU      string
	Quantity int
}

// A ledgerError is raised where an account cannot be closed.
type ledgerError struct {
	Account string
	Cause   error
}

func (e *ledgerError) Error() string { return "ledger " + e.Account + ": " + e.Cause.Error() }

// A store of orders, filled by workers.
type store struct {
	mu     sync.Mutex
	orders map[int]*order
}

func (s *store) get(id int) *order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orders[id]
}

func (s *store) put(o *order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[o.ID] = o
}

// greeting dereferences a customer that one order has not got. Small enough to be inlined.
func greeting(o *order) string { return "Dear " + o.Customer.Name }

// first takes an element that an empty order has not got. Inlined too.
func first(items []item) item { return items[0] }

// recovered turns a panic of a handler into a 500.
func recovered(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				http.Error(w, fmt.Sprint("sorry: ", v), http.StatusInternalServerError)
			}
		}()
		next(w, r)
	}
}

// audited notes a panic and lets it go on, as a new one.
func audited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				panic(fmt.Errorf("audit of %s: %v", r.URL.Path, v))
			}
		}()
		next(w, r)
	}
}

func (s *store) greet(w http.ResponseWriter, r *http.Request) {
	var id int
	fmt.Sscan(r.URL.Query().Get("id"), &id)
	fmt.Fprintln(w, greeting(s.get(id)))
}

func (s *store) firstItem(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, first(s.get(2).Items).SKU)
}

// settle answers at once and leaves the work to a goroutine.
func (s *store) settle(w http.ResponseWriter, r *http.Request) {
	go settleAccount("acme", s.get(1))
	fmt.Fprintln(w, "settling")
}

// settleAccount fails in the middle of the work, and again while it tidies up.
func settleAccount(account string, o *order) {
	defer log.Print("account released")
	defer closeLedger(account)
	for _, it := range o.Items {
		if share(100, it.Quantity) == 0 {
			return
		}
	}
}

// share divides by a quantity that may be zero.
func share(total, parts int) int { return total / parts }

// closeLedger runs while the first panic is under way, and adds its own.
func closeLedger(account string) {
	panic(&ledgerError{Account: account, Cause: errors.New("entries do not balance")})
}

// work fills the store from a queue, as the service's background job.
func work(s *store, queue <-chan *order, done *sync.WaitGroup) {
	defer done.Done()
	for o := range queue {
		s.put(o)
	}
}

func fill(s *store) {
	queue := make(chan *order)
	var done sync.WaitGroup
	for range [4]struct{}{} {
		done.Add(1)
		go work(s, queue, &done)
	}
	queue <- &order{ID: 1, Customer: &customer{"Ada"}, Items: []item{{"pen", 5}, {"ink", 0}}}
	queue <- &order{ID: 2, Customer: &customer{"Grace"}}
	queue <- &order{ID: 3, Items: []item{{"paper", 9}}}
	close(queue)
	done.Wait()
}

func get(url string) {
	response, err := http.Get(url)
	if err != nil {
		fmt.Println("GET", url, "->", err)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	fmt.Printf("GET %s -> %d %s", url, response.StatusCode, body)
}

func main() {
	log.SetFlags(0)
	s := &store{orders: make(map[int]*order)}
	fill(s)

	mux := http.NewServeMux()
	mux.HandleFunc("/greet", recovered(s.greet))
	mux.HandleFunc("/first", s.firstItem)
	mux.HandleFunc("/audited", recovered(audited(s.firstItem)))
	mux.HandleFunc("/settle", s.settle)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
	// As quiet as many services are: of a recovered panic nothing is left.
	server := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(listener)

	base := "http://" + listener.Addr().String()
	get(base + "/greet?id=1")
	get(base + "/greet?id=3") // nil dereference, recovered by the middleware
	get(base + "/first")      // index out of range, recovered by net/http
	get(base + "/audited")    // recovered, raised again, recovered
	get(base + "/settle")     // fatal, a moment later
	time.Sleep(10 * time.Second)
	fmt.Println("still alive: this line should never be seen")
}
