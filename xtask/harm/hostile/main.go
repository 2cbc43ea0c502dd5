// Hostile panics with texts that try to steer a terminal, a browser, a log or a parser; the last one is fatal.
// It prints how many there are.
package main

import (
	"errors"
	"fmt"
	"strings"
)

type Evil struct{ Name, Markup string }

var texts = []string{
	"\x1b]0;owned\x07\x1b[2J\x1b[31mred",
	"<script>alert(1)</script><img src=x onerror=alert(1)>",
	"line\nline\r\nforged log line\x00after zero",
	"\xff\xfe\xf0\x28\x8c\x28 not UTF-8",
	"\u202egnp.exe \u2066 \u200b right to left",
	`","message":"forged","x":"`,
	"{{.}} ${jndi:ldap://x} %s%n `id` $(id)",
	"\u0085\u2028\u2029\u009b31m C1",
	strings.Repeat("very long ", 200000),
	"",
}

func raise(v any) {
	defer func() { recover() }()
	panic(v)
}

func main() {
	for _, text := range texts {
		raise(text)
		raise(errors.New(text))
		raise(Evil{text, text})
		raise(&Evil{text, text})
	}
	fmt.Println(4*len(texts) + 1)
	panic(texts[0] + texts[1])
}
