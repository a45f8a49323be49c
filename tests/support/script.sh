# script.sh - what test scripts share; each reads it before it does anything: how to say what was found, how to wait, and examples/kv.
# A script has $B, says "ok NAME" or "not ok NAME: why" of each of its checks, and ends with $bad. See tools/run-tests.sh.
bad=0

report() { # name, empty or what is wrong
    if [ -z "$2" ]; then echo "ok $1"; else echo "not ok $1: $2"; bad=1; fi
}

skip() { # what is missing, so that nothing more can be tried; with CI=true, where all of it is installed, that is a failure
    [ "${CI:-}" != true ] || { echo "not ok $(basename "$0" .sh): $1"; exit 1; }
    echo "[SKIP] $(basename "$0" .sh): $1"
    exit $bad
}

until_it() { # seconds at most, condition as a command
    tries_left=$(($1 * 10))
    shift
    until "$@"; do
        [ $tries_left -gt 0 ] || return 1
        tries_left=$((tries_left - 1))
        sleep 0.1
    done
}

# The server, with options: $SERVER, which the script's trap ends if kv_stop has not, and $port. What it writes is in $TMP/out and $TMP/err.
kv_start() {
    : > "$TMP/out"
    "$B/examples/kv/kv" --port 0 "$@" > "$TMP/out" 2> "$TMP/err" &
    SERVER=$!
    until_it 10 grep -q ready "$TMP/out" || { echo "not ok kv: it does not start: $(cat "$TMP/err")"; exit 1; }
    port=$(sed -n 's/^kv: ready on 127.0.0.1:\([0-9]*\).*/\1/p' "$TMP/out")
}

kv_stop() { # leaves its exit code in $code
    kill -TERM "$SERVER"
    wait "$SERVER"
    code=$?
    SERVER=
}
