#!/bin/sh
# page_serve - the live page's files, as the endpoint serves them: whole, gzipped or not, with tags, types and the policy that lets them load nothing
# else.
B=${B:?output directory}
. "$(dirname "$0")/support/script.sh"
DIST=$(pwd)/src/debug/serve/page/dist
TMP=$(mktemp -d) || exit 1
HOST=
trap 'exec 3>&- 2> /dev/null; [ -n "$HOST" ] && kill "$HOST" 2>/dev/null; rm -rf "$TMP"' EXIT
command -v curl > /dev/null || { echo "not ok page_serve: curl is missing (Debian: curl)"; exit 1; }

mkfifo "$TMP/in"
"$B/tests/prog/serve_host" < "$TMP/in" > "$TMP/out" 2> "$TMP/err" &
HOST=$!
exec 3> "$TMP/in" # it ends when this does
until_it 10 grep -q '^port' "$TMP/out"
at=http://127.0.0.1:$(sed -n 's/^port //p' "$TMP/out")
get() { : > "$TMP/body"; curl -s -m 20 -D "$TMP/head" -o "$TMP/body" "$@"; }
has() { # words of the headers, each in a line
    for line in "$@"; do tr -d '\r' < "$TMP/head" | grep -qiF "$line" || { echo "no '$line'"; return; }; done
}

for name in index.html app.js app.css LICENSES.txt; do
    path=/debug/page/$name
    [ $name != index.html ] || path=/debug/
    get "$at$path"
    report "${name}_is_whole" "$(cmp "$TMP/body" "$DIST/$name" 2>&1; grep -i '^content-encoding' "$TMP/head")"
    get -H 'Accept-Encoding: br, gzip;q=0.8' "$at$path"
    report "${name}_is_gzipped" "$(has '200 OK' 'Content-Encoding: gzip' 'Vary: Accept-Encoding'; gzip -dc < "$TMP/body" 2>&1 | cmp - "$DIST/$name" 2>&1)"
    get -H 'Accept-Encoding: gzip;q=0' "$at$path"
    report "${name}_is_not_where_refused" "$(cmp "$TMP/body" "$DIST/$name" 2>&1)"
    tag=$(tr -d '\r' < "$TMP/head" | sed -n 's/^[Ee][Tt]ag: //p')
    get -H "If-None-Match: $tag" "$at$path"
    report "${name}_is_kept" "$(has '304 Not Modified' "ETag: $tag" 'Cache-Control: private, no-cache'; [ ! -s "$TMP/body" ] || echo 'it was sent again')"
done
get "$at/debug/"
policy="default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
report policy "$(has 'Content-Type: text/html; charset=utf-8' "Content-Security-Policy: $policy; frame-ancestors 'none'" \
    'X-Content-Type-Options: nosniff' 'Referrer-Policy: no-referrer')"
report no_inline_code "$(grep -niE '<script[^>]*>[^<]|<style| on[a-z]+=| style=' "$TMP/body")"
get "$at/debug/page/app.js"
report type_of_scripts "$(has 'Content-Type: text/javascript; charset=utf-8')"
get "$at/debug/page/../page/nothing"
report others_are_not_found "$(has '404 Not Found')"
get "$at/"
report root_leads_there "$(has '301 Moved' 'Location: /debug/')"
get -X POST -d x "$at/debug/"
report post_is_refused "$(has '405 ')"
exit $bad
