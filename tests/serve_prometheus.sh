#!/bin/sh
# serve_prometheus - the endpoint of examples/kv, under load, and those for whom it is: promtool and a Prometheus that scrapes it; the paths that
# Parca and Grafana Alloy (pyroscope.scrape) fetch by default.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
KV=$B/examples/kv/kv
TMP=$(mktemp -d) || exit 1
SERVER= LOAD= PROM=
trap 'kill $SERVER $LOAD $PROM 2>/dev/null; wait 2>/dev/null; rm -rf "$TMP"' EXIT

for tool in curl redis-benchmark; do
    command -v $tool > /dev/null || { echo "not ok serve_prometheus: $tool is missing (Debian: redis-tools, curl)"; exit 1; }
done
[ -x "$KV" ] || { echo "skipped: $KV is not built"; exit 0; }
"$KV" --help | grep -q -- --debug-port || { echo "not ok serve_prometheus: kv has no --debug-port"; exit 1; }

kv_start --procs 2 --debug-port 0
debug=$(sed -n 's|.*http://127.0.0.1:\([0-9]*\)/debug/.*|\1|p' "$TMP/out")
timeout 200 redis-benchmark -p "$port" -t set,get,lpush -l -n 50000 -c 20 -P 16 -r 10000 -d 64 -q > /dev/null 2>&1 & # timeout hands the signal on
LOAD=$!
fetch() { curl -s -S -m 60 -o "$TMP/body" -D "$TMP/head" -w '%{http_code}' "$@" 2>&1; }

# ---- who collects profiles: Parca's defaults; pyroscope.scrape of Alloy, with a second instead of its fifteen -------------------------
wrong=
for path in allocs block goroutine mutex 'profile?seconds=1'; do
    code=$(fetch "http://127.0.0.1:$debug/debug/pprof/$path")
    [ "$code" = 200 ] || wrong="$wrong [$path: $code]"
    [ "$(head -c 2 "$TMP/body" | od -An -tx1 | tr -d ' ')" = 1f8b ] || wrong="$wrong [$path: not gzip]"
    grep -qi '^content-type: application/octet-stream' "$TMP/head" || wrong="$wrong [$path: $(grep -i content-type "$TMP/head")]"
done
code=$(fetch "http://127.0.0.1:$debug/debug/fgprof?seconds=1")
[ "$code" = 200 ] || wrong="$wrong [fgprof: $code]"
report "the paths that Parca and Alloy scrape by default" "$wrong"

# ---- promtool ------------------------------------------------------------------------------------------------------------------------------
command -v promtool > /dev/null && command -v prometheus > /dev/null || skip "no Prometheus (Debian: prometheus)"
wrong=
fetch "http://127.0.0.1:$debug/metrics" > /dev/null
promtool check metrics < "$TMP/body" > "$TMP/promtool" 2>&1 || wrong=" exit code $?"
[ -s "$TMP/promtool" ] && wrong="$wrong $(head -n 5 "$TMP/promtool" | tr '\n' ' ')"
report "promtool check metrics is clean" "$wrong"

# ---- Prometheus ----------------------------------------------------------------------------------------------------------------------------
cat > "$TMP/prometheus.yml" <<END
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: kv
    static_configs:
      - targets: ["127.0.0.1:$debug"]
END
prometheus --config.file="$TMP/prometheus.yml" --storage.tsdb.path="$TMP/tsdb" --web.listen-address=127.0.0.1:0 --log.level=warn > "$TMP/prom" 2>&1 &
PROM=$!
# Where it listens: its socket's number in the table of all.
listens() {
    for s in $(ls -l "/proc/$PROM/fd" 2> /dev/null | sed -n 's/.*socket:\[\([0-9]*\)\].*/\1/p'); do
        hex=$(awk -v s="$s" '$4 == "0A" && $10 == s { split($2, a, ":"); print a[2] }' /proc/net/tcp)
        [ -n "$hex" ] && web=$(printf '%d' "0x$hex") && return 0
    done
    return 1
}
if ! until_it 30 listens; then
    report "Prometheus scrapes kv" "it does not start: $(tail -n 3 "$TMP/prom")"
    exit 1
fi
query() { curl -s -m 10 -G "http://127.0.0.1:$web/api/v1/query" --data-urlencode "query=$1"; }
value() { query "$1" | sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p'; }
# In a minute, as one that takes longer than a second is given up, and then all series are stale till the next.
last() { value "last_over_time($1[1m])"; }
scraped() { [ "$(value 'sum_over_time(up{job="kv"}[1m]) >= bool 3')" = 1 ]; } # one that takes longer than a second counts as 0
wrong=
until_it 30 scraped || wrong=" three scrapes: $(query 'up')"
n=$(value 'max_over_time(scrape_samples_scraped{job="kv"}[1m])')
[ "${n:-0}" -gt 400 ] || wrong="$wrong [$n samples]"
[ "$(last weft_processors)" = 2 ] || wrong="$wrong [processors $(last weft_processors)]"
[ "$(value 'sum(last_over_time(weft_memory_bytes[1m])) == bool sum(last_over_time(weft_memory_mapped_bytes[1m]))')" = 1 ] || wrong="$wrong [the classes do not add up]"
[ "$(value 'rate(weft_heap_allocated_bytes_total[1m]) > bool 0')" = 1 ] || wrong="$wrong [no allocations under load]"
[ "$(value 'histogram_quantile(0.99, rate(weft_sched_latency_seconds_bucket[1m])) > bool 0')" = 1 ] || wrong="$wrong [latencies]"
[ "$(last weft_build_info)" = 1 ] || wrong="$wrong [build info]"
rss=$(last process_resident_memory_bytes)
[ "${rss%%.*}" ] || wrong="$wrong [rss]"
curl -s -m 10 "http://127.0.0.1:$web/api/v1/metadata?metric=weft_stopped_seconds" | grep -q '"type":"histogram"' || wrong="$wrong [metadata]"
curl -s -m 10 "http://127.0.0.1:$web/api/v1/targets" > "$TMP/targets"
grep -q '"lastError":""' "$TMP/targets" || grep -q 'deadline exceeded' "$TMP/targets" || wrong="$wrong [$(cat "$TMP/targets")]"
report "Prometheus scrapes kv under load" "$wrong"

kill $LOAD $PROM 2> /dev/null
wait $LOAD $PROM 2> /dev/null
LOAD= PROM=
kv_stop
[ $code = 0 ] || report "kv ends while it is scraped" "exit code $code: $(tail -n 3 "$TMP/err")"
exit $bad
