#!/bin/sh
# page_bundle - what is committed in src/debug/serve/page/dist is what build.sh makes of src, with the libraries of package-lock.json.
. "$(dirname "$0")/support/script.sh"
here=$(pwd)/src/debug/serve/page
TMP=$(mktemp -d) || exit 1
trap 'rm -rf "$TMP"' EXIT
command -v npm > /dev/null || skip "no npm (Debian: npm)"
mkdir "$TMP/page"
cp -r "$here/src" "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$here/build.sh" "$TMP/page/"
timeout 120 "$TMP/page/build.sh" > "$TMP/out" 2>&1 || skip "npm could not fetch the libraries: $(tail -n 1 "$TMP/out")"
if diff -r "$here/dist" "$TMP/page/dist" > "$TMP/diff" 2>&1; then
    echo "ok page_bundle"
else
    echo "not ok page_bundle: run src/debug/serve/page/build.sh: $(cut -c 1-150 "$TMP/diff" | head -n 3)"
    exit 1
fi
# Nothing in it names another host, but for the licences, and the names of vocabularies.
found=$(grep -oE "https?://[^\"'\` )]*" "$here"/dist/*.js "$here"/dist/*.css "$here"/dist/*.html | grep -v 'http://www.w3.org/' | head -n 1)
[ -z "$found" ] && echo "ok page_names_no_host" || { echo "not ok page_names_no_host: $found"; exit 1; }
