# What would harm a host, in a virtual machine: FUSE servers that stall or call back, a clock that jumps, a CPU that goes and comes.
# Prints a line for each; `failed` in it is a failure. Ends by the machine's time-out if every exec is blocked.

# A panicwatch with an exec gate, and the program that it watches.
./panicwatch run -- ./book -begin 10m > /dev/null 2> gate.log & watched=$!
sleep 15
grep -q . gate.log && cat gate.log

# A busy host delays the machine's execs too: the limit of 3 s is beyond what an exec takes without FUSE.
alone=$(./fuse measure 4s)
for kind in stall call; do
	./fuse serve /mnt/$kind ./book $kind > $kind.log & server=$!
	until grep -q serving $kind.log; do sleep 1; done
	/mnt/$kind/prog -panics 1 > /dev/null 2>&1 & program=$!
	sleep 1
	slowest=$(./fuse measure 4s)
	wait $program; status=$?
	if [ $status -eq 7 ] && [ "$slowest" -lt $((alone + 3000)) ]; then
		echo "FUSE $kind: the slowest exec beside it took $slowest ms, without it $alone ms"
	else
		echo "FUSE $kind: failed: the slowest exec beside it took $slowest ms, without it $alone ms, the program ended with $status"
	fi
	umount -l /mnt/$kind; kill $server 2> /dev/null
done
kill $watched

# $1: what happens; $2: a command while 200 panics are raised.
during() {
	./panicwatch run --max-captures 0 -o $1.jsonl -- ./book -begin 15s -panics 200 -goroutines 2 -pause 50ms > $1.out 2> $1.err & run=$!
	until grep -q . $1.jsonl 2> /dev/null; do sleep 1; kill -0 $run || break; done
	sh -c "$2" > /dev/null 2>&1
	wait $run; status=$?
	incidents=$(wc -l < $1.jsonl)
	if [ $status -eq 7 ] && [ "$incidents" -eq 200 ] && grep -q "recovered 200" $1.out; then
		echo "$1: 200 panics, 200 incidents"
	else
		echo "$1: failed: status $status, $incidents incidents of $(cat $1.out): $(cat $1.err)"
	fi
}
during clock "date -s '2035-01-01 00:00'; sleep 1; date -s '2001-01-01 00:00'; sleep 1; date -s '2026-01-01 00:00'"
during hotplug "echo 0 > /sys/devices/system/cpu/cpu1/online; sleep 2; echo 1 > /sys/devices/system/cpu/cpu1/online"
