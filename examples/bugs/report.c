/* report - what the programs 01 to 14 measured, as one page: demo-report.html, which `make demo` writes.
 *
 *     report RECORDS SOURCE... > page.html
 *
 * RECORDS is what the programs (bug.h) and demo.sh have noted, a line "name<tab>text" each. Of a source the words in its head are shown: what the
 * call
 * promises, what the bug assumes, what goes wrong. The page holds all it needs; it asks nobody for anything, and runs no script. */
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUGS = 32, MODES = 3, PLOTS = 3, COMMANDS = 16, NOTES = 8 };
enum { PROMISE, ASSUMES, WRONG, INSTEAD, GUARDED, WORDS };

static const char *const mode_names[MODES] = { "buggy", "fixed", "guarded" };

struct mode { const char *cell, *text, *code, *what, *cure, *stack, *made; };
struct plot { const char *name, *unit, *value[MODES]; bool more; };
struct bug {
    const char *number, *title, *instead, *guard, *verdict;
    char *words[WORDS];
    struct mode mode[MODES];
    struct plot plot[PLOTS];
    int plots;
};
static struct bug bugs[BUGS];
static int n_bugs;

static struct command { const char *name; double rate, p50, p99; int pipeline; } commands[COMMANDS];
static int n_commands;
static const char *notes[NOTES], *machine = "", *date = "";
static int n_notes;

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static void *must(void *p)
{
    if (p == NULL) {
        perror("report");
        exit(1);
    }
    return p;
}

/* "\n" and "\\" stand for what they say. */
static const char *plain(const char *text)
{
    char *to = must(malloc(strlen(text) + 1)), *at = to;
    for (; *text; text++)
        *at++ = *text != '\\' || text[1] == 0 ? *text : *++text == 'n' ? '\n' : *text;
    *at = 0;
    return to;
}

static void add_plot(struct bug *b, char *text)
{
    const char *part[3 + MODES];
    int n = 0;
    for (char *p; n < 3 + MODES && (p = strsep(&text, "\t")) != NULL;)
        part[n++] = plain(p);
    if (n < 3 + MODES || b->plots == PLOTS)
        return;
    struct plot *p = &b->plot[b->plots++];
    *p = (struct plot){ .name = part[0], .unit = part[1], .more = strcmp(part[2], "1") == 0 };
    memcpy(p->value, part + 3, sizeof p->value);
}

static void add_command(char *text)
{
    struct command *c = &commands[n_commands];
    char name[32];
    if (n_commands < COMMANDS && sscanf(text, "%31s %d %lf %lf %lf", name, &c->pipeline, &c->rate, &c->p50, &c->p99) == 5) {
        c->name = must(strdup(name));
        n_commands++;
    }
}

static const char **field_of(struct bug *b, struct mode *m, const char *name)
{
    const struct { const char *name; const char **to; } fields[] = {
        { "title", &b->title }, { "instead", &b->instead }, { "guard", &b->guard }, { "verdict", &b->verdict },
        { "cell", &m->cell }, { "text", &m->text }, { "code", &m->code }, { "what", &m->what }, { "cure", &m->cure },
        { "stack", &m->stack }, { "made", &m->made },
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].to;
    return NULL;
}

static void read_records(const char *path)
{
    FILE *f = must(fopen(path, "r"));
    char *line = NULL;
    size_t room = 0;
    struct bug *b = &bugs[0];
    struct mode *m = &b->mode[0];
    while (getline(&line, &room, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *text = line, *name = strsep(&text, "\t");
        if (text == NULL)
            continue;
        const char **to = field_of(b, m, name);
        if (strcmp(name, "bug") == 0 && n_bugs < BUGS) {
            b = &bugs[n_bugs++];
            m = &b->mode[0];
            b->number = plain(text);
        } else if (strcmp(name, "mode") == 0) {
            for (int i = 0; i < MODES; i++)
                if (strcmp(text, mode_names[i]) == 0)
                    m = &b->mode[i];
        } else if (strcmp(name, "plot") == 0) {
            add_plot(b, text);
        } else if (strcmp(name, "command") == 0) {
            add_command(text);
        } else if (strcmp(name, "note") == 0 && n_notes < NOTES) {
            notes[n_notes++] = plain(text);
        } else if (strcmp(name, "machine") == 0) {
            machine = plain(text);
        } else if (strcmp(name, "date") == 0) {
            date = plain(text);
        } else if (to != NULL) {
            *to = plain(text);
        }
    }
    free(line);
    fclose(f);
}

static const char *const labels[WORDS] = { "What the call", "What the bug", "What goes wrong", "Instead", "Guarded" };

/* The paragraphs of a head "Label:   text", which go on with lines that are indented. */
static void read_head(const char *path)
{
    const char *file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    struct bug *b = NULL;
    for (int i = 0; i < n_bugs; i++)
        if (strncmp(bugs[i].number, file, 2) == 0)
            b = &bugs[i];
    FILE *f = must(fopen(path, "r"));
    char *line = NULL;
    size_t room = 0;
    int word = WORDS;
    bool end = b == NULL;
    while (!end && getline(&line, &room, f) > 0) {
        char *close = strstr(line, "*/");
        end = close != NULL;
        line[close ? (size_t)(close - line) : strcspn(line, "\n")] = 0;
        char *text = line + strspn(line, " /*");
        bool goes_on = text - line > 4;
        if (!goes_on) {
            word = WORDS;
            for (int i = 0; i < WORDS; i++)
                if (strncmp(text, labels[i], strlen(labels[i])) == 0)
                    word = i;
            char *colon = word < WORDS ? strchr(text, ':') : NULL;
            text = colon ? colon + 1 + strspn(colon + 1, " ") : text;
        }
        if (word == WORDS)
            continue;
        char *old = b->words[word], *both = must(malloc(strlen(old ? old : "") + strlen(text) + 2));
        sprintf(both, "%s%s%s", old ? old : "", old ? " " : "", text);
        free(old);
        b->words[word] = both;
    }
    free(line);
    fclose(f);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static void put(const char *text)
{
    for (; text && *text; text++)
        switch (*text) {
        case '&': fputs("&amp;", stdout); break;
        case '<': fputs("&lt;", stdout); break;
        case '>': fputs("&gt;", stdout); break;
        case '"': fputs("&quot;", stdout); break;
        case '\n': fputs("<br>", stdout); break;
        default: putchar(*text);
        }
}

/* %s is escaped; nothing else is understood. */
__attribute__((format(printf, 1, 2))) static void html(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    for (; *format; format++) {
        if (format[0] == '%' && format[1] == 's') {
            put(va_arg(ap, const char *));
            format++;
        } else {
            putchar(*format);
        }
    }
    va_end(ap);
}

static size_t word_length(const char *text)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '_')
        n++;
    return n;
}

/* A sentence, perhaps from the middle of a line; what is a name in the program looks like one. */
static void put_sentence(const char *text)
{
    for (bool first = true; text && *text; first = false) {
        char word[128];
        size_t n = word_length(text);
        if (n == 0 || n >= sizeof word) {
            word[0] = *text;
            n = 1;
        } else {
            memcpy(word, text, n);
        }
        word[n] = 0;
        bool name = strchr(word, '_') != NULL && n > 1;
        if (first && !name)
            word[0] = (char)toupper((unsigned char)word[0]);
        html(name ? "<code>%s</code>" : "%s", word);
        text += n;
    }
}

/* Three digits or so, thousands apart. */
static const char *figure(double v, char *to, size_t n)
{
    long whole = (long)(v + 0.5);
    if (v >= 1e6)
        snprintf(to, n, "%ld\u202f%03ld\u202f%03ld", whole / 1000000, whole / 1000 % 1000, whole % 1000);
    else if (v >= 10000)
        snprintf(to, n, "%ld\u202f%03ld", whole / 1000, whole % 1000);
    else if (v >= 100 || v == (double)whole)
        snprintf(to, n, "%ld", whole);
    else
        snprintf(to, n, v >= 10 ? "%.1f" : "%.2f", v);
    return to;
}

enum { LABEL = 66, BAR = 190, ROW = 24, WIDE = 340 };

static void bar(int row, const char *class, const char *label, double v, double most, const char *unit)
{
    char text[64];
    int y = row * ROW, length = most > 0 ? (int)(v / most * BAR + 0.5) : 0;
    if (length < 2)
        length = 2;
    printf("<text class=\"l\" x=\"%d\" y=\"%d\">", LABEL - 8, y + 16);
    put(label);
    printf("</text><rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"16\" rx=\"3\"/>", class, LABEL, y + 3, length);
    printf("<text class=\"v\" x=\"%d\" y=\"%d\">%s", LABEL + length + 6, y + 16, figure(v, text, sizeof text));
    html("%s%s</text>", *unit && *unit != '/' && *unit != '%' ? " " : "", unit);
}

static void stopped_row(int row, const char *label, const char *code)
{
    int y = row * ROW;
    printf("<text class=\"l\" x=\"%d\" y=\"%d\">%s</text>", LABEL - 8, y + 16, label);
    printf("<rect class=\"stopped\" x=\"%d.5\" y=\"%d.5\" width=\"%d\" height=\"15\" rx=\"3\"/>", LABEL, y + 3, BAR);
    printf("<text class=\"s\" x=\"%d\" y=\"%d\">stopped by the doctor: ", LABEL + 10, y + 15);
    html("%s</text>", code ? code : "");
}

static void put_plot(const struct bug *b, const struct plot *p)
{
    double v[MODES], most = 0;
    for (int i = 0; i < MODES; i++) {
        v[i] = atof(p->value[i]);
        most = v[i] > most ? v[i] : most;
    }
    html("<figure><figcaption>%s <small>(%s is better)</small></figcaption>", p->name, p->more ? "more" : "less");
    printf("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDE, MODES * ROW);
    for (int i = 0; i < MODES; i++)
        html("%s%s %s %s", i ? ", " : "", mode_names[i], strcmp(p->value[i], "-") == 0 ? "stopped" : p->value[i], p->unit);
    fputs("\">", stdout);
    for (int i = 0; i < MODES; i++) {
        if (strcmp(p->value[i], "-") == 0)
            stopped_row(i, mode_names[i], b->mode[i].code);
        else if (v[i] >= 0)
            bar(i, mode_names[i], mode_names[i], v[i], most, p->unit);
    }
    fputs("</svg></figure>\n", stdout);
}

static void put_words(const char *label, const char *text)
{
    if (text == NULL || *text == 0)
        return;
    html("<dt>%s</dt><dd>", label);
    put_sentence(text);
    fputs("</dd>", stdout);
}

static void put_finding(const struct mode *m)
{
    if (m->code == NULL)
        return;
    html("<aside class=\"finding\"><b>%s</b> ", m->code);
    put_sentence(m->what);
    fputs(".", stdout);
    if (m->stack && *m->stack)
        html("<pre>%s</pre>", m->stack);
    if (m->made && *m->made)
        html("<span class=\"from\">made by</span><pre>%s</pre>", m->made);
    fputs("<p>", stdout);
    put_sentence(m->cure);
    fputs("</p></aside>\n", stdout);
}

static bool holds(const struct bug *b) { return b->verdict == NULL || *b->verdict == 0; }

static void put_bug(const struct bug *b)
{
    html("<section id=\"bug%s\"><h2><span class=\"no\">%s</span>", b->number, b->number);
    put_sentence(b->title);
    html("<span class=\"%s\">%s</span></h2>\n<div class=\"two\"><dl>", holds(b) ? "yes" : "no-", holds(b) ? "holds" : "does not hold");
    put_words("The call promises", b->words[PROMISE]);
    put_words("The bug assumes", b->words[ASSUMES]);
    put_words("What goes wrong", b->words[WRONG]);
    fputs("</dl><div class=\"plots\">\n", stdout);
    for (int i = 0; i < b->plots; i++)
        put_plot(b, &b->plot[i]);
    fputs("</div></div>\n", stdout);
    put_finding(&b->mode[0]);
    html("<div class=\"cure\"><h3>Write instead</h3><pre>%s</pre>", b->instead);
    if (b->words[INSTEAD]) {
        fputs("<p>", stdout);
        put_sentence(b->words[INSTEAD]);
        fputs("</p>", stdout);
    }
    fputs("</div>\n", stdout);
    if (b->guard && *b->guard) {
        fputs("<p class=\"guard\"><b>Guarded:</b> ", stdout);
        put_sentence(b->guard);
        fputs(".</p>\n", stdout);
    }
    fputs("<details><summary>As it was measured</summary><dl class=\"said\">", stdout);
    for (int i = 0; i < MODES; i++)
        if (b->mode[i].text && *b->mode[i].text)
            html("<dt class=\"%s\">%s</dt><dd>%s</dd>", mode_names[i], mode_names[i], b->mode[i].text);
    fputs("</dl></details>", stdout);
    if (!holds(b))
        html("<p class=\"wrong\">What did not hold: %s.</p>\n", b->verdict);
    fputs("</section>\n", stdout);
}

static void put_overview(void)
{
    fputs("<table class=\"all\"><thead><tr><th>bug<th>what<th>buggy<th>fixed<th>guarded<th>doctor</tr></thead><tbody>\n", stdout);
    for (const struct bug *b = bugs; b < bugs + n_bugs; b++) {
        html("<tr><td><a href=\"#bug%s\">%s</a><td class=\"what\"><a href=\"#bug%s\">%s</a>", b->number, b->number, b->number, b->title);
        for (int i = 0; i < MODES; i++)
            html("<td class=\"%s\" data-l=\"%s\">%s", mode_names[i], mode_names[i], b->mode[i].cell);
        html("<td class=\"w\" data-l=\"doctor\">%s</tr>\n", b->mode[0].code ? b->mode[0].code : "");
    }
    fputs("</tbody></table>\n", stdout);
}

static void put_server(void)
{
    if (n_commands == 0)
        return;
    fputs("<section id=\"kv\"><h2>And under load</h2><p>kv, a server that speaks the Redis protocol: one fiber per connection, all data in the "
          "collected heap. redis-benchmark asks on 50 connections, with 100000 keys and values of 64 bytes.</p><div class=\"two\">\n", stdout);
    for (int pipeline = 0, k = 0; k < n_commands; k++) {
        if (commands[k].pipeline == pipeline)
            continue;
        pipeline = commands[k].pipeline;
        double most = 0;
        int n = 0;
        for (int i = k; i < n_commands && commands[i].pipeline == pipeline; i++, n++)
            most = commands[i].rate > most ? commands[i].rate : most;
        printf("<figure><figcaption>Requests per second, %s</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\">",
               pipeline == 1 ? "one by one" : "in pipelines of 16", WIDE, n * ROW);
        for (int i = 0; i < n; i++)
            bar(i, "fixed", commands[k + i].name, commands[k + i].rate, most, "/s");
        fputs("</svg><table class=\"late\"><tr><th>", stdout);
        for (int i = 0; i < n; i++)
            html("<th>%s", commands[k + i].name);
        for (int p = 0; p < 2; p++) {
            printf("<tr><td>%s, ms", p ? "p99" : "p50");
            for (int i = 0; i < n; i++)
                printf("<td>%.2f", p ? commands[k + i].p99 : commands[k + i].p50);
        }
        fputs("</table></figure>\n", stdout);
    }
    fputs("</div><p>Meanwhile the collector:</p><ul>", stdout);
    for (int i = 0; i < n_notes; i++)
        html("<li>%s</li>", notes[i]);
    fputs("</ul></section>\n", stdout);
}

static const char style[] =
    ":root{--bg:#fbfaf7;--card:#fff;--ink:#22242a;--soft:#6a6f7a;--line:#e3e0d8;--buggy:#c8452f;--fixed:#2f8557;--guarded:#3566b8;--code:#f3f1ea;"
    "--warm:#fdf4e3;--warmline:#e8c88a}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#15171c;--card:#1d2027;--ink:#e4e6eb;--soft:#969cab;--line:#31353f;--buggy:#ea7560;--fixed:#57b884;"
    "--guarded:#74a2ee;--code:#262a33;--warm:#2b261b;--warmline:#6b5527}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"
    "\"Segoe UI\",sans-serif}main{max-width:1080px;margin:0 auto;padding:2rem 1.2rem 4rem}\n"
    "h1{font-size:1.9rem;line-height:1.2;margin:.2em 0 .3em;letter-spacing:-.01em}header p{color:var(--soft);max-width:46em;margin:.3em 0}\n"
    ".tally{display:flex;flex-wrap:wrap;gap:.6rem;margin:1.4rem 0}.tally div{background:var(--card);border:1px solid var(--line);border-radius:10px;"
    "padding:.6rem 1rem;min-width:8.5rem;flex:1}.tally b{display:block;font-size:1.7rem;line-height:1.2;font-variant-numeric:tabular-nums}"
    ".tally span{color:var(--soft);font-size:.85rem}\n"
    "section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1.1rem 1.4rem 1.2rem;margin:1.4rem 0}"
    "h2{font-size:1.25rem;margin:0 0 .8rem;display:flex;align-items:baseline;gap:.6rem;flex-wrap:wrap}h3{font-size:.8rem;margin:0 0 .3rem;"
    "color:var(--soft);"
    "font-weight:600}\n"
    ".no{color:var(--soft);font-variant-numeric:tabular-nums;font-weight:500}.yes,.no-{margin-left:auto;font-size:.78rem;font-weight:600;"
    "color:var(--fixed)}"
    ".yes::before{content:\"\\2713\\a0\"}.no-{color:var(--buggy)}.no-::before{content:\"\\2717\\a0\"}.wrong{color:var(--buggy)}\n"
    ".two{display:grid;grid-template-columns:minmax(0,1.15fr) minmax(0,1fr);gap:1.6rem}dl{margin:0}dt{color:var(--soft);font-size:.8rem;"
    "font-weight:600}"
    "dd{margin:0 0 .7rem}\n"
    "figure{margin:0 0 1rem}figcaption{font-size:.85rem;margin-bottom:.25rem}figcaption small{color:var(--soft)}svg{width:100%;"
    "max-width:480px;height:auto;"
    "display:block;font:12px system-ui,sans-serif}svg .l{text-anchor:end;fill:var(--soft)}svg .v{fill:var(--ink);font-variant-numeric:tabular-nums}"
    "svg .s{fill:var(--soft);font-size:11.5px}rect.buggy{fill:var(--buggy)}rect.fixed{fill:var(--fixed)}rect.guarded{fill:var(--guarded)}"
    "rect.stopped{fill:none;stroke:var(--guarded);stroke-dasharray:4 3}\n"
    "pre{background:var(--code);border-radius:8px;padding:.6rem .8rem;margin:.4rem 0;overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,"
    "monospace}code{font:.92em ui-monospace,SFMono-Regular,Menlo,monospace}.finding{background:var(--warm);border:1px solid var(--warmline);"
    "border-radius:10px;padding:.7rem 1rem;margin:.4rem 0 .9rem;font-size:.95rem}"
    ".finding pre{background:none;padding:.2rem 0 .2rem 1rem}.finding p{margin:.3rem 0 0}.from{color:var(--soft);font-size:.85rem}"
    ".cure p{margin:.4rem 0 .6rem}.guard{margin:.6rem 0}.guard b{color:var(--guarded);font-weight:600}\n"
    "details{margin-top:.6rem;font-size:.92rem}summary{cursor:pointer;color:var(--soft)}.said{margin-top:.5rem}dt.buggy,td.buggy{color:var(--buggy)}"
    "dt.fixed,td.fixed{color:var(--fixed)}dt.guarded,td.guarded{color:var(--guarded)}\n"
    "table{border-collapse:collapse;width:100%;font-size:.88rem}.all{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "border-collapse:separate;border-spacing:0;overflow:hidden}th{text-align:left;color:var(--soft);font-weight:600}th,td{padding:.38rem .6rem;"
    "vertical-align:top}.all tbody td{border-top:1px solid var(--line)}.all a{color:inherit;text-decoration:none}.all a:hover,.all a:focus-visible"
    "{text-decoration:underline}.w{white-space:nowrap}.late td,.late th{text-align:right;padding:.15rem .3rem;font-size:.78rem;"
    "font-variant-numeric:tabular-nums}"
    ".late td:first-child{text-align:left;color:var(--soft)}a:focus-visible,summary:focus-visible{outline:2px solid var(--guarded);"
    "outline-offset:2px}"
    "footer{color:var(--soft);font-size:.85rem;margin-top:2rem}\n"
    "@media(max-width:760px){main{padding:1.2rem .8rem 3rem}section{padding:.9rem .9rem 1rem}.two{grid-template-columns:minmax(0,1fr);gap:.6rem}"
    "h1{font-size:1.5rem}.all thead{display:none}.all,.all tbody{display:block}.all tr{display:grid;grid-template-columns:2.2rem 1fr;"
    "padding:.5rem .6rem;"
    "border-top:1px solid var(--line)}.all tr:first-child{border-top:0}.all tbody td{border:0;padding:.08rem .2rem;"
    "grid-column:2}.all tbody td:first-child"
    "{grid-column:1;grid-row:1/span 5;color:var(--soft)}.all .what{font-weight:600}.all td[data-l]::before{content:attr(data-l) \": \";"
    "color:var(--soft)}"
    ".tally div{min-width:42%}}\n"
    "@media print{section{break-inside:avoid}details{display:none}}\n";

static void put_tally(void)
{
    int found = 0, stopped = 0, good = 0;
    for (const struct bug *b = bugs; b < bugs + n_bugs; b++) {
        found += b->mode[0].code != NULL;
        stopped += b->mode[2].cell && strncmp(b->mode[2].cell, "stopped", 7) == 0;
        good += holds(b);
    }
    printf("<div class=\"tally\"><div><b>%d</b><span>misuses reproduced</span></div>"
           "<div><b>%d</b><span>named by the doctor, with the line</span></div><div><b>%d</b><span>whose fix and guard hold</span></div>"
           "<div><b>%d + %d</b><span>made harmless by a guard, or stopped</span></div></div>\n", n_bugs, found, good, n_bugs - stopped, stopped);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s RECORDS SOURCE...\n", argv[0]);
        return 2;
    }
    read_records(argv[1]);
    for (int i = 2; i < argc; i++)
        read_head(argv[i]);
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
          "<meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'\"><title>weft: what goes wrong with a managed runtime</title>\n<style>", stdout);
    fputs(style, stdout);
    fputs("</style></head><body><main><header><h1>What goes wrong with a managed runtime, and what weft does about it</h1>"
          "<p>A garbage collector, green threads and profilers make a C program simpler, and bring mistakes of their own. These are the "
          "classic ones. Each was run "
          "three times: as it is written in the wild (<b>buggy</b>), as it should be (<b>fixed</b>), and the buggy code once more with "
          "weft's guards on "
          "(<b>guarded</b>). The doctor watched all of it.</p>", stdout);
    html("<p>%s%s%s</p></header>\n", machine, *machine && *date ? "; " : "", date);
    put_tally();
    put_overview();
    for (const struct bug *b = bugs; b < bugs + n_bugs; b++)
        put_bug(b);
    put_server();
    fputs("<footer>Written by <code>make demo</code>. The programs are in examples/bugs, the guards in include/weft/sched.h, the doctor in "
          "include/weft/debug.h.</footer></main></body></html>\n", stdout);
    return fflush(stdout) != 0 || ferror(stdout) ? 1 : 0;
}
