#!/bin/sh
# kv_redis - examples/kv driven by the real clients: redis-cli for every command, redis-benchmark for load.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TMP=$(mktemp -d) || exit 1
SERVER=
trap '[ -n "$SERVER" ] && kill "$SERVER" 2>/dev/null; rm -rf "$TMP"' EXIT

for tool in redis-cli redis-benchmark; do
    command -v $tool > /dev/null || { echo "not ok kv_redis: $tool is missing (Debian: redis-tools)"; exit 1; }
done

start() { # WEFT_DEBUG and options
    debug=$1; shift
    export WEFT_DEBUG="$debug"
    kv_start --unix "$TMP/sock" "$@"
}
stop() { # what is wrong with the end: in $ended
    kv_stop
    ended=
    [ $code = 0 ] || ended=" exit code $code: $(tail -n 3 "$TMP/err")"
}

# ---- every command, over the unix socket: a request, then the reply as redis-cli prints it without a terminal ---------------------
cli() { timeout 20 redis-cli -s "$TMP/sock" "$@" 2>&1 | tr '\n' ' ' | sed 's/ *$//'; }
check() { # want, request...
    want=$1; shift
    got=$(cli "$@")
    [ "$got" = "$want" ] || wrong="$wrong [$*: wanted '$want', got '$got']"
}

start ""
wrong=
check PONG ping
check hi ping hi
check hi echo hi
check OK set k v
check v get k
check "" get none
check "" set k x nx
check OK set k x xx
check "" set none x xx
check OK set t v ex 100
[ "$(cli ttl t)" -gt 90 ] || wrong="$wrong [ttl]"
check 1 exists t
check 1 expire t 200
[ "$(cli ttl t)" -gt 190 ] || wrong="$wrong [ttl after expire]"
check -1 ttl k
check -2 ttl none
check 0 expire none 10
check 1 del t
check 1 incr n
check 11 incrby n 10
check 10 decr n
check 5 decrby n 5
check OK mset a 1 b 2 c 3
check "1 2  3" mget a b none c
check 3 append x abc
check 6 append x def
check 6 strlen x
check 3 rpush l b c d
check 4 lpush l a
check "a b c d" lrange l 0 -1
check "b c" lrange l 1 2
check 4 llen l
check a lpop l
check "d c" rpop l 2
check b lpop l
check 0 llen l
check 2 hset h f 1 g 2
check 1 hget h f
check 2 hlen h
check 1 hdel h f
check "g 2" hgetall h
check "WRONGTYPE Operation against a key holding the wrong kind of value" get h
check "ERR wrong number of arguments for 'get' command" get
check "ERR unknown command 'nosuch', with args beginning with: 'a'" nosuch a
check 7 dbsize
check "save" config get save
check OK client setname me
check OK select 0
check OK flushall
check 0 dbsize
[ "$(cli command count)" -gt 30 ] || wrong="$wrong [command count]"
cli info | grep -q gc_cycles || wrong="$wrong [info]"
report commands "$wrong"

# redis-cli --pipe sends a file as one pipeline and counts the replies.
i=0
while [ $i -lt 20000 ]; do printf 'SET key:%d value-%d\r\n' $i $i; i=$((i + 1)); done > "$TMP/mass"
wrong=$(timeout 60 redis-cli -s "$TMP/sock" --pipe < "$TMP/mass" 2>&1 | tail -n 1)
[ "$wrong" = "errors: 0, replies: 20000" ] && wrong=
report mass_insertion "$wrong"
stop
report end "$ended"

# ---- load -----------------------------------------------------------------------------------------------------------------------
load() { # name, WEFT_DEBUG, requests of each kind, kinds, arguments of redis-benchmark
    name=$1; debug=$2; requests=$3; kinds=$4; shift 4
    start "$debug"
    timeout 60 redis-benchmark -p "$port" -n "$requests" -t "$kinds" -r 10000 -d 100 "$@" --csv > "$TMP/bench" 2>&1
    code=$?
    wrong=$(grep -v '^"' "$TMP/bench")
    [ $code = 0 ] || wrong="$wrong redis-benchmark ended with $code after: $(tail -n 1 "$TMP/bench")"
    [ "$(timeout 20 redis-cli -p "$port" ping)" = PONG ] || wrong="$wrong no PONG afterwards"
    asked=$(timeout 20 redis-cli -p "$port" info stats | tr -d '\r' | sed -n 's/^total_commands_processed://p')
    total=$((requests * $(echo "$kinds" | tr ',' '\n' | wc -l)))
    [ "${asked:-0}" -ge $total ] || wrong="$wrong only $asked of $total commands were processed"
    stop
    report "$name" "$wrong$ended"
}
all=ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,hset,lrange_100,lrange_600,mset
load fifty_connections "" 10000 $all -c 50
load pipelines "" 50000 $all -c 50 -P 16
load five_hundred_connections "" 20000 set,get,lpush -c 500
load five_hundred_pipelines "" 50000 set,get -c 500 -P 16
load five_hundred_pipelines_unix "" 50000 set,get,lpush,lpop -c 500 -P 16 -s "$TMP/sock"
load collect_all_the_time "gcstress=100,gcpoison=1" 5000 set,get,incr,lpush,lpop,hset,mset -c 20 -P 8
exit $bad
