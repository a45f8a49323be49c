#!/bin/sh
# embed.sh - writes the page's files as C, for page.c to serve: each as it is and gzipped, with a tag of its contents.
#   embed.sh FILE... > files.c
set -eu
export LC_ALL=C
array() { # name; bytes from stdin
    printf 'static const unsigned char %s[] = {\n' "$1"
    od -An -v -tu1 | sed 's/  *\([0-9]\)/\1/; s/  */,/g; s/$/,/'
    printf '};\n'
}
echo '#include "debug/serve/page.h"'
n=0
for file in "$@"; do
    array "plain_$n" < "$file"
    gzip -9nc "$file" | array "gzipped_$n"
    n=$((n + 1))
done
echo 'const struct page_file page_files[] = {'
n=0
for file in "$@"; do
    case $file in
    *.html) type='text/html; charset=utf-8' ;;
    *.css) type='text/css; charset=utf-8' ;;
    *.js) type='text/javascript; charset=utf-8' ;;
    *) type='text/plain; charset=utf-8' ;;
    esac
    printf '    { "%s", "%s", "%.16s", plain_%d, sizeof plain_%d, gzipped_%d, sizeof gzipped_%d },\n' \
        "${file##*/}" "$type" "$(sha256sum < "$file")" $n $n $n $n
    n=$((n + 1))
done
printf '};\nconst unsigned page_files_n = %d;\n' $n
