#!/bin/busybox sh
# The first process of a machine that `cargo xtask vm` boots: makes the checks, each a function of that name, and turns the
# machine off. A check sets `detail` to what it has measured and fails if that is wrong; it counts as one test, unless it
# sets `counts` to how many passed, failed and were skipped. Verdicts go to the second serial line, as verdicts.rs
# describes; everything else is printed on the console, the first.
#
# Time here is real, but the processors are emulated, so all takes long, and now and then much longer. So what is compared
# with a fault's figures is never a mean: of the rows the median, and in each the smallest round trip.
#
# Left out are the tests over the lab's links (tests/truth.rs and src/ebpf/tests.rs of netdiag-probe): they compare with an
# emulator that is a process like others, and too slow here for its own figures. netem is in the kernel, and takes its place.

# The agent's and its streams' checks are together, from `agent` to `stop`: what still runs takes the processors from the
# next, and the tests of both crates time what they run.
PLAN="doctor probe_tests agent delay loss rate stop chaos_tests"

# Two network namespaces with a cable between them. The servers are at the near end, `va`, where the faults are. With its
# path: busybox has an `ip` of its own, which would come first.
IP=/usr/bin/ip
NEAR="$IP netns exec near"
FAR="$IP netns exec far"
NEAR_IP=10.9.0.1

# Ports of the token stream and of the bulk transfer.
STREAM=7000
BULK=7001

ROWS=/tmp/rows.csv

# What the machine supports: everything, or nothing that follows can work.
doctor() {
    report=$(timeout 120 netdiag doctor)
    ended=$?
    echo "$report"
    lacking=$(echo "$report" | grep -E '^(WARN|FAIL)')
    detail=${lacking:-"exit $ended, $(echo "$report" | grep -c '^ok') checks ok"}
    [ $ended = 0 ] && [ -z "$lacking" ] && echo "$report" | grep -q '^ok *qdisc netem'
}

# Both sources of netdiag-probe against connections over loopback.
probe_tests() {
    run_tests probe
}

# The agent sees the round trips of a stream between two other namespaces, by eBPF.
agent() {
    netdiag agent --source ebpf --port $STREAM --port $BULK --interval 0.5 --csv $ROWS &
    agent=$!
    until_it has_rows 1 || return
    while usleep 30000; do echo token; done | $NEAR nc -l -p $STREAM &
    stream=$!
    sleep 1
    # With an input that stays open: otherwise its half of the connection would be closed at once.
    sleep 3600 | $FAR nc $NEAR_IP $STREAM >/dev/null &
    calm=$(median min_rtt_us 10)
    source=$(column source 0 | sort -u)
    detail="RTT $calm us, by $source"
    [ "$calm" -gt 0 ] && [ "$calm" -lt 50000 ] && [ "$source" = ebpf ]
}

# A delay is in the round trips, and SIGTERM takes it away.
delay() {
    inject --delay 100ms --for 1h || return
    sleep 1
    rtt=$(median min_rtt_us 10)
    kill -TERM $chaos
    wait $chaos
    ended=$?
    is_faulty && ended="$ended and still there"
    sleep 1
    after=$(median min_rtt_us 6)
    detail="RTT $calm us, with 100 ms more $rtt us, after SIGTERM (exit $ended) $after us"
    [ "$ended" = 0 ] && [ "$rtt" -ge 100000 ] && [ "$rtt" -le 150000 ] && [ "$after" -lt 50000 ]
}

# What is lost is sent again, and the agent counts as the kernel does. The fault ends with its time.
loss() {
    before=$(kernels_count)
    inject --loss 10% --for 15s || return
    wait $chaos
    ended=$?
    is_faulty && ended="$ended and still there"
    until_it counts_agree
    repeated=$(($(kernels_count) - before))
    detail="$repeated segments sent again with 10% lost, after 15 s exit $ended; in all the kernel counted $(kernels_count) and the agent $(agents_count)"
    [ "$ended" = 0 ] && [ $repeated -ge 5 ] && counts_agree
}

# A rate is what a bulk transfer gets. SIGKILL leaves the fault behind, and --restore removes it.
rate() {
    $NEAR nc -l -p $BULK </dev/zero &
    bulk=$!
    sleep 1
    sleep 3600 | $FAR nc $NEAR_IP $BULK >/dev/null &
    sleep 1
    free=$(median throughput_bps 6)
    inject --rate 1mbit --for 1h || return
    # What is on its way already comes first.
    sleep 3
    limited=$(median throughput_bps 16)
    kill -KILL $chaos
    wait $chaos
    is_faulty && left=left
    told=$($NEAR netdiag chaos --restore 2>&1)
    ended=$?
    is_faulty && ended="$ended and still there"
    detail="$free bit/s, at 1 Mbit/s $limited bit/s; ${left:-not left} by SIGKILL; --restore: exit $ended ($told)"
    [ "$ended" = 0 ] && [ "$left" = left ] || return
    [ "$free" -ge 3000000 ] && [ "$limited" -ge 800000 ] && [ "$limited" -le 1050000 ]
}

# The agent ends when it is told to. Its streams have ended before.
stop() {
    kill $stream $bulk
    kill -TERM $agent
    wait $agent
    ended=$?
    detail="exit $ended after $(column source 0 | wc -l) rows"
    [ $ended = 0 ]
}

# The tests of `netdiag chaos`: changes from one fault to the next, ends of every kind, what is refused.
chaos_tests() {
    run_tests chaos chaos::
}

# Runs an executable of tests, with the words after its name.
run_tests() {
    log=/tmp/$1.log
    executable=/tests/$1
    shift
    # Several times what it needs: a test that hangs is to be named in the log before the machine is ended.
    timeout 800 "$executable" "$@" --test-threads=1 --show-output >$log 2>&1
    ended=$?
    cat $log
    # A test that cannot run says so, and passes.
    skipped=$(grep -c 'skipped: ' $log)
    counts=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' $log |
        { read passed failed && echo $((passed - skipped)) $failed $skipped; })
    detail=$(sed -n 's/.*\(skipped: .*\)/\1;/p' $log)
    failing=$(sed -n '1,/^failures:$/d; s/^---- \(.*\) stdout ----$/\1/p' $log)
    [ $ended = 0 ] || detail="exit $ended${failing:+: }$failing; $detail"
    detail=${detail%;}
    [ $ended = 0 ] && [ "${counts%% *}" -ge 1 ]
}

# Starts `netdiag chaos` and waits until the fault is there.
inject() {
    $NEAR netdiag chaos --iface va "$@" &
    chaos=$!
    until_it is_faulty
}

# By the handle of a root queueing discipline that is ours.
is_faulty() {
    $NEAR tc qdisc show dev va | grep -q ' 4e44: root'
}

# The values of a column in the rows from the given number on, without those that are empty.
column() {
    awk -F, -v name="$1" -v from="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; next }
        NR > from + 1 && $at != "" { print $at }' $ROWS
}

# The median of a column, as a whole number, in the next rows: so many of them.
median() {
    now=$(column source 0 | wc -l)
    until_it has_rows $((now + $2)) || return
    column "$1" "$now" | sort -n | awk '{ value[NR] = $1 } END { printf "%d", value[int((NR + 1) / 2)] }'
}

has_rows() {
    [ -f $ROWS ] && [ "$(column source 0 | wc -l)" -ge "$1" ]
}

# Segments sent again since the start, by the near end's kernel and by the agent.
kernels_count() {
    $NEAR awk '$1 == "Tcp:" { if (at) print $at; else for (i = 1; i <= NF; i++) if ($i == "RetransSegs") at = i }' /proc/net/snmp
}

agents_count() {
    column retrans_count 0 | awk '{ sum += $1 } END { printf "%d", sum }'
}

counts_agree() {
    [ "$(kernels_count)" = "$(agents_count)" ]
}

# Asks again and again, for a minute.
until_it() {
    for attempt in $(seq 120); do
        "$@" && return
        usleep 500000
    done
    detail="waited in vain: $*"
    return 1
}

verdict() {
    echo "$@" >/dev/ttyS1
}

/bin/busybox --install -s /bin
# Where the kernel looks for it.
ln -s /bin/busybox /sbin/modprobe
export PATH=/usr/bin:/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
$IP link set lo up
for end in near far; do $IP netns add $end; done
$IP -netns near link add va type veth peer name vb netns far
$IP -netns near addr add $NEAR_IP/24 dev va
$IP -netns far addr add 10.9.0.2/24 dev vb
$IP -netns near link set va up
$IP -netns far link set vb up

verdict plan "$PLAN"
for check in $PLAN; do
    counts=
    detail=
    echo "---- $check"
    # Without quotes, so that each becomes one line.
    if $check; then
        verdict $check ok ${counts:-1 0 0} $detail
    else
        verdict $check FAILED ${counts:-0 1 0} $detail
    fi
done
verdict end
poweroff -f
