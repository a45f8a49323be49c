#!/bin/sh
# Every test that CONTRACTS.md names exists: `suite::test` is a Test() of Criterion or a macro's for one (LEAK_TEST), `name.sh` a script, both in tests/.
set -u
cd "$(dirname "$0")" || exit 1
names=$(grep -o '`[a-z0-9_]*::[a-z0-9_]*`' CONTRACTS.md | tr -d '`' | sort -u)
scripts=$(grep -o '`[a-z0-9_/]*\.sh`' CONTRACTS.md | tr -d '`' | sort -u)
have=$(grep -hoE '^(Test|ParameterizedTest|[A-Z]+_TEST)\([^)]*' ./*.c ./*/*.c | sed 's/.*(//; s/ *, */::/; s/ *,.*//' | sort -u)
missing=$(for n in $names; do printf '%s\n' "$have" | grep -qxF "$n" || echo "$n"; done; for s in $scripts; do [ -e "$s" ] || echo "$s"; done)
rows=$(grep -c '^|' CONTRACTS.md)
empty=$(grep -n '^|.*| *|$' CONTRACTS.md)
if [ -n "$missing" ]; then
    echo "not ok contracts: named in CONTRACTS.md and not there"
    printf '%s\n' "$missing"
elif [ -n "$empty" ]; then
    echo "not ok contracts: rows without a test or a reason"
    printf '%s\n' "$empty"
elif [ "$rows" -lt 100 ]; then
    echo "not ok contracts: only $rows rows: is the table still there?"
else
    echo "ok contracts ($rows rows, $(printf '%s\n' "$names" | wc -l) tests)"
fi
