#!/bin/sh
# Layers only look down: a file includes its own layer and those to its left. (trace has its stacks and symbols from prof, which knows no trace.)
set -u
cd "$(dirname "$0")/.." || exit 1
awk '
    BEGIN { split("base os gc sched prof trace debug", names); for (i in names) rank[names[i]] = i }
    FNR == 1 { split(FILENAME, path, "/"); own = path[2]; files++ }
    /^[ \t]*#[ \t]*include[ \t]+"/ {
        split($0, q, "\"")
        split(q[2], inc, "/")
        if (!(inc[1] in rank))
            bad = bad sprintf("%s:%d: \"%s\" is not layer/file.h\n", FILENAME, FNR, q[2])
        else if (rank[inc[1]] > rank[own])
            bad = bad sprintf("%s:%d: %s looks up, at \"%s\"\n", FILENAME, FNR, own, q[2])
    }
    END {
        if (bad != "") { print "not ok layers: some files look up"; printf "%s", bad } else print "ok layers (" files " files)"
    }' src/*/*.[ch] src/os/arch/*.[chS]
