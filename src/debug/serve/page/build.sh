#!/bin/sh
# build.sh - makes the bundle of the live page: dist/ out of src/, with the libraries of package-lock.json (preact draws the views, uPlot the time
# series). Needs npm; whoever builds weft does not, for dist/ is committed. Run it after a change in src/; tests/page_bundle.sh tells when that was
# forgotten.
#   build.sh [DIR]   writes into DIR instead of dist
set -eu
cd "$(dirname "$0")"
out=${1:-dist}
npm ci --ignore-scripts --no-audit --no-fund --silent
mkdir -p "$out"
node_modules/.bin/esbuild src/main.jsx --bundle --minify --target=chrome111,firefox113,safari16.4 --jsx=automatic --jsx-import-source=preact \
    --legal-comments=none --log-level=warning --charset=utf8 --outfile="$out/app.js"
mv "$out/app.css" "$out/app.css.tmp" && mv "$out/app.css.tmp" "$out/app.css"
cp src/index.html "$out/index.html"
for library in preact uplot; do
    version=$(sed -n 's/^  "version": "\(.*\)",\{0,1\}$/\1/p' "node_modules/$library/package.json" | head -n 1)
    printf '==== %s %s ====\n\n' "$library" "$version"
    cat "node_modules/$library/LICENSE"
    printf '\n'
done > "$out/LICENSES.txt"
