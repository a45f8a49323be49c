#!/bin/sh
# page_browser - the live page in headless Chromium, over examples/kv under load: each view shows what the endpoint tells, nothing is asked of another
# host or refused by the page's policy, it can be used by keyboard and on a phone, in the light and in the dark. See page_browser.cjs.
#   SHOTS=dir   also leaves pictures there (`make shots`)
# Needs Chromium (Debian: chromium-headless-shell, or chromium) and npm, which fetches playwright-core into build/browser.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
TMP=$(mktemp -d) || exit 1
pids=
trap 'exec 3>&- 2> /dev/null; kill $pids 2> /dev/null; rm -rf "$TMP"' EXIT
. "$(dirname "$0")/support/browser.sh"
command -v redis-benchmark > /dev/null || { echo "not ok page_browser: redis-benchmark is missing (Debian: redis-tools)"; exit 1; }
fetched playwright-core@1

wait_for() { # file, words
    until_it 10 grep -q "$2" "$1" || { echo "not ok page_browser: no '$2': $(cat "$1" "$TMP/err")"; exit 1; }
}
CLIENTS=30
# The browser comes first: the load is to be there, not to win.
nice -n 19 "$B/examples/kv/kv" --port 0 --procs 2 --debug-port 0 > "$TMP/out" 2> "$TMP/err" &
pids="$pids $!"
wait_for "$TMP/out" ready
port=$(sed -n 's/.*ready.*127.0.0.1:\([0-9]*\).*/\1/p' "$TMP/out")
wait_for "$TMP/err" 'serves http'
at=$(cat "$TMP/out" "$TMP/err" | grep -o 'http://[^ ;]*' | head -n 1)
nice -n 19 timeout 300 redis-benchmark -p "$port" -t set,get,lpush,hset -l -n 200000 -c $CLIENTS -r 20000 -d 64 > /dev/null 2>&1 &
pids="$pids $!"

TOKEN=a-token-of-a-test-0123456789
mkfifo "$TMP/in"
"$B/tests/prog/serve_host" token=$TOKEN "finding=a finding <b>of</b> a test" < "$TMP/in" > "$TMP/host" 2> "$TMP/err2" &
pids="$pids $!"
exec 3> "$TMP/in" # it ends when this does
wait_for "$TMP/host" '^port'

AT=$at TOKEN_AT=http://127.0.0.1:$(sed -n 's/^port //p' "$TMP/host")/debug/ TOKEN=$TOKEN CHROMIUM=$chromium CLIENTS=$CLIENTS SHOTS=${SHOTS:-} \
    NODE_PATH="$NODE/node_modules" timeout 300 node tests/page_browser.cjs
