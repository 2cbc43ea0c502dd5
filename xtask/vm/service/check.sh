# In a virtual machine with systemd, as root: the unit starts, tells that it is ready, drops privileges, reloads, comes back
# after SIGKILL and after hanging, stops in order, and nothing is lost but the gap.
set -u
failed=0
check() { # check WHAT COMMAND…: the command must succeed
    local what=$1
    shift
    if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi
}
show() { systemctl show --property "$1" --value panicwatch; }
restarts() { [ "$(show NRestarts)" = "$1" ]; }
within() { # within SECONDS COMMAND…: until the command succeeds
    local left=$1
    shift
    while ! "$@"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}
says() { panicwatch top --once 2>/dev/null | grep -q -- "$1"; }

install -D -m755 /test/panicwatch /usr/bin/panicwatch
install -D -m600 /test/panicwatch.toml /etc/panicwatch/panicwatch.toml
install -D -m644 /test/panicwatch.service /etc/systemd/system/panicwatch.service
systemctl daemon-reload
check "systemd knows every key of the unit" [ -z "$(systemd-analyze verify --man=no /etc/systemd/system/panicwatch.service 2>&1)" ]

check "it starts, and says itself when it has" systemctl start panicwatch
pid=$(show MainPID)
grep -E '^(Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp|VmRSS)' "/proc/$pid/status"
check "it keeps few capabilities" grep -q "^CapEff:.000000c001280004" "/proc/$pid/status"
check "it gains none" grep -q '^NoNewPrivs:.*1' "/proc/$pid/status"

/test/service-prog 20 die >/dev/null 2>&1
check "every panic is there" within 20 says "recovered 20"
check "and the death" within 20 says "fatal 1"

check "it reloads" systemctl reload panicwatch
check "it goes on" within 5 systemctl is-active --quiet panicwatch
check "as the same process" [ "$(show MainPID)" = "$pid" ]

kill -9 "$pid"
check "it comes back after SIGKILL" within 20 restarts 1
check "and is ready again" within 40 systemctl is-active --quiet panicwatch
check "what was stored is there" within 20 says "recovered 20"
/test/service-prog 5 die >/dev/null 2>&1
check "and what came since" within 20 says "recovered 25"

kill -STOP "$(show MainPID)"
check "it is replaced when it hangs" within 120 restarts 2
check "and is ready again" within 40 systemctl is-active --quiet panicwatch

check "it stops" systemctl stop panicwatch
check "in order" [ "$(show Result)/$(show ExecMainStatus)" = success/0 ]
systemd-analyze security --no-pager panicwatch | tail -1
journalctl --unit panicwatch --no-pager --output cat | tail -40
exit $failed
