# browser.sh - what drives a headless browser: $chromium, and packages of npm's in $NODE/node_modules. Who reads it has `skip`, which ends.
NODE=$(pwd)/build/browser
chromium=
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    [ -n "$chromium" ] || chromium=$(command -v $name || true)
done
[ -n "$chromium" ] || skip "no Chromium (Debian: chromium-headless-shell)"
command -v npm > /dev/null && command -v node > /dev/null || skip "no npm (Debian: npm)"

fetched() { # name@version...: fetches them, unless all are there
    for package in "$@"; do
        [ -d "$NODE/node_modules/${package%@*}" ] && continue
        mkdir -p "$NODE"
        timeout 120 npm install --prefix "$NODE" --no-audit --no-fund --silent "$@" > "$NODE/npm.log" 2>&1 ||
            skip "npm could not fetch $*: $(tail -n 1 "$NODE/npm.log")"
        return
    done
}
