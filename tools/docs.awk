# The reference, from the public headers.
#
#   awk -v form=html -v version=V -f tools/docs.awk include/weft/*.h > weft.html
#   awk -v form=man  -v version=V -v dir=DIR -f tools/docs.awk include/weft/*.h     a page per header, weft-sync.3, and one per name, which leads there
#
# What it makes of a header (include/weft/*.h are written so):
#
#   first comment              "weft/io.h - what it is for", then what holds for all of it
#   comment with dashes        a section
#   comment, then code         an item: the code up to an empty line, with what the comment says of it
#   comment, then nothing      text
#   lines that stand in        as they are; "- " begins an item of a list
#
# Names that something declares are links wherever they occur. Guards, includes and macros that end in _ are left out. Any awk will do.

FNR == 1 {
    if (file != "")
        end_item()
    file = FILENAME
    sub(/.*\//, "", file)
    nheaders++
    header[nheaders] = file
    depth = 0
    in_comment = skipping = 0
    first = 1
}

in_comment { comment_line($0); next }
skipping { skipping = /\\$/; next }
depth == 0 && /^\/\* ---- .* -+ \*\/$/ {
    end_item()
    s = $0
    sub(/^\/\* -+ /, "", s)
    sub(/ -+ \*\/$/, "", s)
    add("section", s)
    next
}
depth == 0 && /^\/\*/ {
    if (code != "" || text != "")
        end_item()
    comment_line($0)
    next
}
depth == 0 && (/^#(if|ifdef|ifndef|else|endif|include|undef)/ || /^WEFT_(BEGIN|END)_DECLS/ || /^#define WEFT_(BEGIN_DECLS|END_DECLS|API|MUST_CHECK|NORETURN)/ ||
    /^#define WEFT_[A-Z]*_H$/) { next }
depth == 0 && /^#define [A-Z_a-z0-9]*_(\(| |$)/ { skipping = /\\$/; next }
depth == 0 && /^$/ { end_item(); next }
{
    line = $0
    gsub(/WEFT_API /, "", line)
    gsub(/ WEFT_(MUST_CHECK|NORETURN)/, "", line)
    gsub(/ __attribute__\(\(format\([^)]*\)\)\)/, "", line)
    declares(line)
    code = code line "\n"
    bare = line
    gsub(/\/\*[^*]*\*\//, "", bare)
    depth += gsub(/{/, "", bare) - gsub(/}/, "", bare)
    if (depth < 0 || line ~ /^#define/)
        depth = 0
}

# A line of a comment that began in the first column.
function comment_line(s)
{
    in_comment = s !~ /\*\//
    sub(/^\/\*\*? ?/, "", s)
    if (in_comment || s ~ /\*\/ *$/) {
        sub(/ *\*\/ *$/, "", s)
    } else { # code behind it
        sub(/\*\/.*/, "", s)
    }
    if (!sub(/^ \* ?/, "", s))
        sub(/^   ?/, "", s)
    text = text s "\n"
}

function end_item(    title, rest, at, i)
{
    if (first && text != "") {
        title = rest = text
        sub(/\n.*/, "", title)
        sub(/^weft\/[a-z]*\.h - /, "", title)
        rest = substr(rest, index(rest, "\n") + 1)
        while (title !~ /[.]$/ && rest !~ /^\n/ && rest != "") { # a first sentence of several lines
            title = title " " substr(rest, 1, index(rest, "\n") - 1)
            rest = substr(rest, index(rest, "\n") + 1)
        }
        if ((at = index(title, ". ")) > 0) { # only that sentence
            rest = substr(title, at + 2) "\n" rest
            title = substr(title, 1, at - 1)
        }
        sub(/[.]$/, "", title)
        about[file] = title
        text = rest
        first = 0
    }
    if (code != "" || text ~ /[^ \n]/) {
        add("item", text)
        code_of[nparts] = code
        for (i = 1; i <= nfresh; i++) {
            if (fresh[i] in part_of)
                continue
            part_of[fresh[i]] = nparts
            kind_of[fresh[i]] = fresh_kind[i]
            nnames++
            name[nnames] = fresh[i]
        }
    }
    nfresh = 0
    text = code = ""
}

function add(kind, s)
{
    nparts++
    part_kind[nparts] = kind
    part_text[nparts] = s
    part_file[nparts] = file
}

function declare(n, kind) { nfresh++; fresh[nfresh] = n; fresh_kind[nfresh] = kind }

# What a line of code declares.
function declares(line,    s)
{
    s = line
    gsub(/\/\*[^*]*\*\//, "", s)
    sub(/\/\*.*/, "", s)
    if (s ~ /^#define WEFT_/) {
        sub(/^#define /, "", s)
        sub(/[ (].*/, "", s)
        declare(s, "macro")
    } else if (depth == 0 && match(s, /weft_[a-z0-9_]+\(/) && s !~ /^#/) {
        declare(substr(s, RSTART, RLENGTH - 1), s ~ /^typedef/ ? "type" : "function")
    } else if (s ~ /^typedef .* weft_[a-z0-9_]+;/ || s ~ /^} weft_[a-z0-9_]+;/) {
        sub(/;.*/, "", s)
        sub(/.*[ *]/, "", s)
        declare(s, "type")
    }
    if (depth == 0 && s ~ /^enum/)
        in_enum = 1
    if (in_enum) {
        if (s ~ /}/)
            in_enum = 0
        sub(/^enum[^{]*{/, "", s)
        while (match(s, /WEFT_[A-Z0-9_]+/)) {
            declare(substr(s, RSTART, RLENGTH), "constant")
            s = substr(s, RSTART + RLENGTH)
        }
    }
}

END {
    end_item()
    if (form == "man")
        write_man()
    else
        write_html()
}

# ---- text in pieces: calls piece(kind, s) for "p", "li" and "pre" ------------------------------------------------------

function pieces(t,    n, lines, i, s, kind, body, bare, want, bullet, indent)
{
    n = split(t, lines, "\n")
    kind = body = ""
    bullet = 0
    for (i = 1; i <= n; i++) {
        s = lines[i]
        bare = s
        sub(/^ +/, "", bare)
        indent = length(s) - length(bare)
        if (bare == "") {
            if (kind == "pre" && i < n && lines[i + 1] ~ /^  /) {
                body = body "\n"
                continue
            }
            piece(kind, body)
            kind = body = ""
            continue
        }
        if (bare ~ /^- / && (kind != "pre" || body == "")) {
            piece(kind, body)
            kind = "li"
            bullet = indent
            sub(/^- /, "", bare)
            body = bare
            continue
        }
        want = kind == "li" && indent > bullet ? "li" : indent >= 2 ? "pre" : "p"
        if (want != kind) {
            piece(kind, body)
            kind = want
            body = want == "pre" ? substr(s, 3) : bare
        } else
            body = body (kind == "pre" ? "\n" substr(s, 3) : " " bare)
    }
    piece(kind, body)
}

function piece(kind, s)
{
    if (kind == "")
        return
    if (form == "man")
        man_piece(kind, s)
    else
        html_piece(kind, s)
}

# ---- HTML -----------------------------------------------------------------------------------------------------------

function escape(s)
{
    gsub(/&/, "\\&amp;", s)
    gsub(/</, "\\&lt;", s)
    gsub(/>/, "\\&gt;", s)
    gsub(/"/, "\\&quot;", s)
    return s
}

# Escapes s and makes links of the names in it, but of those that the part `here` declares.
function linked(s, here,    out, word, bare)
{
    s = escape(s)
    out = ""
    while (match(s, /(weft|WEFT)(_[A-Za-z0-9_]+|\/[a-z]+\.h)/)) {
        word = substr(s, RSTART, RLENGTH)
        out = out substr(s, 1, RSTART - 1)
        s = substr(s, RSTART + RLENGTH)
        bare = word
        sub(/^weft\//, "", bare)
        if (word in part_of && part_of[word] != here)
            out = out "<a href=\"#" word "\">" word "</a>"
        else if (bare in about)
            out = out "<a href=\"#" bare "\">" word "</a>"
        else
            out = out word
    }
    return out s
}

function html_piece(kind, s)
{
    if (in_list && kind != "li")
        print "</ul>"
    if (!in_list && kind == "li")
        print "<ul>"
    in_list = kind == "li"
    if (kind == "pre")
        print "<pre class=\"text\">" linked(s) "</pre>"
    else
        print "<" kind ">" ticked(linked(s)) "</" kind ">"
}

function html_text(t)
{
    in_list = 0
    pieces(t)
    if (in_list)
        print "</ul>"
    in_list = 0
}

# `this` is code.
function ticked(s,    n, part, i, out)
{
    n = split(s, part, "`")
    if (n % 2 == 0)
        return s
    out = part[1]
    for (i = 2; i <= n; i++)
        out = out (i % 2 == 0 ? "<code>" : "</code>") part[i]
    return out
}

# Code, with its comments in a colour of their own.
function html_code(s, here,    out, at, end)
{
    sub(/\n$/, "", s)
    out = ""
    while ((at = index(s, "/*")) > 0) {
        out = out linked(substr(s, 1, at - 1), here)
        s = substr(s, at)
        end = index(s, "*/")
        if (end == 0)
            end = length(s) - 1
        out = out "<i>" linked(substr(s, 1, end + 1)) "</i>"
        s = substr(s, end + 2)
    }
    return out linked(s, here)
}

function write_html(    i, k, h, last)
{
    html_head()
    print "<nav id=\"nav\"><a class=\"home\" href=\"#top\"><b>weft</b> " escape(version) "</a>"
    print "<input id=\"find\" type=\"search\" placeholder=\"Search  ( / )\" aria-label=\"Search for a name\" autocomplete=\"off\" spellcheck=\"false\">"
    print "<p id=\"none\" hidden>No such name</p>"
    for (h = 1; h <= nheaders; h++) {
        print "<details><summary><a href=\"#" header[h] "\">" header[h] "</a></summary><ul>"
        for (k = 1; k <= nnames; k++)
            if (part_file[part_of[name[k]]] == header[h] && kind_of[name[k]] != "constant")
                print "<li><a class=\"" kind_of[name[k]] "\" href=\"#" name[k] "\">" name[k] "</a></li>"
        print "</ul></details>"
    }
    print "</nav><main id=\"top\"><h1>weft " escape(version) "</h1>"
    print "<p>The public headers, which are the manual. Each function's comment says what it does, every value it can return, who may call it, and whether " \
        "it may block or collect.</p><table>"
    for (h = 1; h <= nheaders; h++)
        print "<tr><td><a href=\"#" header[h] "\">weft/" header[h] "</a></td><td>" ticked(linked(about[header[h]])) "</td></tr>"
    print "</table>"
    for (i = 1; i <= nparts; i++) {
        if (part_file[i] != last) {
            last = part_file[i]
            print "<h2 id=\"" last "\"><a href=\"#" last "\">weft/" last "</a></h2><p class=\"about\">" ticked(linked(about[last])) "</p>"
        }
        if (part_kind[i] == "section") {
            print "<h3 id=\"s" i "\">" escape(toupper(substr(part_text[i], 1, 1)) substr(part_text[i], 2)) "</h3>"
            continue
        }
        print "<section>"
        if (code_of[i] != "") {
            for (k = 1; k <= nnames; k++)
                if (part_of[name[k]] == i)
                    printf "<span id=\"%s\"></span>", name[k]
            print "<pre class=\"code\">" html_code(code_of[i], i) "</pre>"
        }
        html_text(part_text[i])
        print "</section>"
    }
    print "</main>"
    html_script()
    print "</body></html>"
}

function html_head()
{
    print "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    print "<title>weft " escape(version) ": reference</title><style>"
    print ":root { color-scheme: light dark; --bg: #fdfdfb; --fg: #1c1f23; --dim: #626a73; --line: #dfe2e0; --code: #f3f4f0; --link: #0b5fa5;"
    print "--mark: #fff3bf; }"
    print "@media (prefers-color-scheme: dark) { :root { --bg: #15181b; --fg: #d9dde1; --dim: #8f98a1; --line: #2d3338; --code: #1d2226;"
    print "--link: #76b7f0; --mark: #453b13; } }"
    print "* { box-sizing: border-box } html { scroll-padding-top: 1rem }"
    print "body { margin: 0; background: var(--bg); color: var(--fg); font: 16px/1.55 system-ui, sans-serif; display: grid;"
    print "grid-template-columns: 18rem minmax(0, 1fr) }"
    print "a { color: var(--link); text-decoration: none } a:hover { text-decoration: underline }"
    print "a:focus-visible, input:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 1px }"
    print "nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1rem; border-right: 1px solid var(--line); font-size: .875rem }"
    print "nav .home { color: var(--fg); font-size: 1.1rem } nav input { width: 100%; margin: .75rem 0; padding: .4rem .6rem; font: inherit;"
    print "color: inherit; background: var(--code); border: 1px solid var(--line); border-radius: 6px }"
    print "nav ul { list-style: none; margin: 0 0 .5rem; padding: 0 0 0 1rem } nav li a { font-family: ui-monospace, monospace;"
    print "font-size: .8125rem; overflow-wrap: anywhere; display: block; padding: .1rem 0 }"
    print "nav a.type, nav a.macro { color: var(--dim) } summary { cursor: pointer; padding: .15rem 0 }"
    print "main { padding: 1.5rem clamp(1rem, 4vw, 3rem) 50vh; max-width: 62rem } h1 { margin-top: 0 } h2 { margin: 3.5rem 0 0;"
    print "padding-top: .5rem; border-top: 2px solid var(--line) } h2 a { color: inherit }"
    print "h3 { margin: 2.25rem 0 .5rem; color: var(--dim); font-weight: 600 } .about { margin-top: .25rem; color: var(--dim) }"
    print "section { margin: 1.25rem 0 } main p, main li, main td { overflow-wrap: anywhere } main td:first-child { overflow-wrap: normal;"
    print "white-space: nowrap } section > p, section > ul { margin: .5rem 0; max-width: 46rem } td { padding: .15rem 1rem .15rem 0;"
    print "vertical-align: top }"
    print "pre { overflow-x: auto; margin: .5rem 0; font: .8125rem/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; tab-size: 4 }"
    print "pre.code { background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem }"
    print "pre i { color: var(--dim); font-style: normal } pre.text { padding-left: .8rem; border-left: 3px solid var(--line) }"
    print "span:target + pre, span:target ~ pre { background: var(--mark) }"
    print "@media (max-width: 50rem) { body { display: block } nav { position: static; height: auto; max-height: 45vh; border-right: 0;"
    print "border-bottom: 1px solid var(--line) } }"
    print "@media print { nav { display: none } body { display: block } }"
    print "</style></head><body>"
}

function html_script()
{
    print "<script>"
    print "const find = document.getElementById('find'), nav = document.getElementById('nav'), none = document.getElementById('none');"
    print "const parts = [...nav.querySelectorAll('details')].map(d => ({ d, links: [...d.querySelectorAll('li')] }));"
    print "function show() {"
    print "  const words = find.value.toLowerCase().split(/\\s+/).filter(Boolean);"
    print "  let hits = 0;"
    print "  for (const { d, links } of parts) {"
    print "    let here = 0;"
    print "    for (const li of links) { const name = li.textContent.toLowerCase(), hit = words.every(w => name.includes(w)); li.hidden = !hit;"
    print "here += hit; }"
    print "    d.hidden = words.length > 0 && here === 0;"
    print "    d.open = words.length > 0 && here > 0;"
    print "    hits += here;"
    print "  }"
    print "  none.hidden = hits > 0;"
    print "}"
    print "find.addEventListener('input', show);"
    print "find.addEventListener('keydown', e => {"
    print "  if (e.key === 'Escape') { find.value = ''; show(); }"
    print "  if (e.key === 'Enter') { const a = nav.querySelector('li:not([hidden]) a'); if (a && find.value) location.hash = a.hash; }"
    print "});"
    print "addEventListener('keydown', e => { if (e.key === '/' && document.activeElement !== find) { e.preventDefault(); find.focus();"
    print "find.select(); } });"
    print "</script>"
}

# ---- manual pages -----------------------------------------------------------------------------------------------------

function roff(s)
{
    gsub(/\\/, "\\\\e", s)
    gsub(/-/, "\\\\-", s)
    gsub(/"/, "\\(dq", s)
    gsub(/\n\./, "\n\\\\\\&.", s)
    gsub(/\n'/, "\n\\\\\\&'", s)
    if (s ~ /^[.']/)
        s = "\\&" s
    return s
}

function man_piece(kind, s)
{
    if (kind == "pre") {
        print ".PP\n.RS 4\n.nf\n" roff(s) "\n.fi\n.RE" > page
    } else if (kind == "li") {
        print ".IP \\(bu 3\n" roff(s) > page
    } else {
        print ".PP\n" roff(s) > page
    }
}

function write_man(    h, i, k, base)
{
    for (h = 1; h <= nheaders; h++) {
        base = header[h]
        sub(/\.h$/, "", base)
        page = dir "/weft-" base ".3"
        print ".TH WEFT\\-" toupper(base) " 3 \"\" \"weft " version "\" \"weft\"" > page
        print ".SH NAME\nweft\\-" base " \\- " roff(about[header[h]]) > page
        print ".SH SYNOPSIS\n.nf\n.B #include <weft/" header[h] ">\n.fi\n.SH DESCRIPTION" > page
        for (i = 1; i <= nparts; i++) {
            if (part_file[i] != header[h])
                continue
            if (part_kind[i] == "section") {
                print ".SH " toupper(roff(part_text[i])) > page
                continue
            }
            if (code_of[i] != "") {
                sub(/\n$/, "", code_of[i])
                print ".PP\n.nf\n\\fB" roff(code_of[i]) "\\fR\n.fi\n.RS 4" > page
            }
            pieces(part_text[i])
            if (code_of[i] != "")
                print ".RE" > page
        }
        print ".SH SEE ALSO\n.BR weft\\-doctor (1)" > page
        close(page)
        for (k = 1; k <= nnames; k++)
            if (part_file[part_of[name[k]]] == header[h] && kind_of[name[k]] == "function") {
                link = dir "/" name[k] ".3"
                print ".so man3/weft-" base ".3" > link
                close(link)
            }
    }
}
