/* Code addresses to functions, files and lines, by elfutils' libdw.
 *
 * A module's file is read when the first address in it is asked for, and kept as long as the module stays loaded: each has
 * a Dwfl of its own, hung on its entry of the table of modules. Is the file on disk no longer the one that was loaded (another build id), then
 * nothing of it is believed. Debug information in a separate file is found by build id below /usr/lib/debug, or by the name and checksum that the file
 * has of it (.gnu_debuglink); nothing is ever fetched from a network.
 *
 * What we look for, until something is found: the unit of the address in the DWARF data, by its table of ranges or (clang writes none) unit by
 * unit; in it the function and the functions inlined there, by walking down the entries that hold the address. Then the
 * ELF symbol tables. Then module and offset, which is also what remains where libdw is not installed. */
#include "prof/symbols.h"
#include <dlfcn.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "prof/helper.h"

struct text { struct text *next; char s[]; };

/* maps_module.user */
struct sym_module {
    Dwfl *dwfl;
    Dwfl_Module *mod;   /* NULL: no file, or not the right one */
    struct text *texts; /* paths that were put together */
};

/* ---- libdw --------------------------------------------------------------------------------------------- */

/* Loaded when the first address is asked for, as libunwind is: a program that never looks does not carry it and the four libraries below it
 * (430 KiB resident). elf_cntl is libelf's, which comes along. */
#define DW_FUNCTIONS(X)                                                                                            \
    X(dwarf_attr) X(dwarf_attr_integrate) X(dwarf_child) X(dwarf_entrypc) X(dwarf_filesrc) X(dwarf_formstring)     \
    X(dwarf_formudata) X(dwarf_getalt) X(dwarf_getelf) X(dwarf_getsrc_die) X(dwarf_getsrcfiles) X(dwarf_haspc)     \
    X(dwarf_lineno) X(dwarf_linesrc) X(dwarf_siblingof) X(dwarf_tag) X(dwfl_begin) X(dwfl_build_id_find_debuginfo) \
    X(dwfl_build_id_find_elf) X(dwfl_end) X(dwfl_module_addrdie) X(dwfl_module_addrinfo) X(dwfl_module_build_id)   \
    X(dwfl_module_getdwarf) X(dwfl_module_getelf) X(dwfl_module_nextcu) X(dwfl_offline_section_address)            \
    X(dwfl_report_begin) X(dwfl_report_elf) X(dwfl_report_end) X(elf_cntl)

/* Guarded by the table of modules (maps_begin), like all that follows. */
static struct {
    bool tried, ready;
#define X(function) __typeof__(function) *function;
    DW_FUNCTIONS(X)
#undef X
} dw;

/* The CRC of .gnu_debuglink, which is zlib's; four bits at a time. */
static uint32_t crc_add(uint32_t crc, const uint8_t *p, size_t n)
{
    static const uint32_t of[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                     0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
    for (; n > 0; p++, n--) {
        crc = crc >> 4 ^ of[(crc ^ *p) & 15];
        crc = crc >> 4 ^ of[(crc ^ *p >> 4) & 15];
    }
    return crc;
}

/* The descriptor of the file of that CRC, or -1. */
static int link_open(const char *path, uint32_t crc)
{
    uint8_t buf[16384];
    uint32_t is = ~0u;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    while ((n = read(fd, buf, sizeof buf)) > 0)
        is = crc_add(is, buf, (size_t)n);
    if (n == 0 && ~is == crc && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Where debuggers look, too: beside the file, in .debug there, and in the system's tree. */
static int link_find(const char *file, const char *link, uint32_t crc)
{
    static const char *const in[][2] = { { "", "/" }, { "", "/.debug/" }, { "/usr/lib/debug", "/" } };
    const char *slash = strrchr(file, '/');
    char path[4096];
    int fd = -1;
    for (size_t i = 0; slash != NULL && i < w_countof(in) && fd < 0; i++)
        if (w_fmt(path, sizeof path, "%s%.*s%s%s", in[i][0], (int)(slash - file), file, in[i][1], link) < sizeof path)
            fd = link_open(path, crc);
    return fd;
}

/* Files of this machine only: the standard search may ask servers. By the build id, else by the link that the file has. */
static int find_debuginfo(Dwfl_Module *mod, void **user, const char *name, GElf_Addr base, const char *file, const char *link,
                          GElf_Word crc, char **found)
{
    int fd = dw.dwfl_build_id_find_debuginfo(mod, user, name, base, NULL, NULL, 0, found);
    return fd >= 0 || file == NULL || link == NULL ? fd : link_find(file, link, crc);
}

static char *debuginfo_path = (char *)":/usr/lib/debug";
static Dwfl_Callbacks callbacks = { .find_debuginfo = find_debuginfo, .debuginfo_path = &debuginfo_path };

static bool dw_load(void)
{
    if (dw.tried)
        return dw.ready;
    dw.tried = true;
    void *h = dlopen("libdw.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (h == NULL)
        return false;
#define X(function)                                   \
    *(void **)&dw.function = dlsym(h, #function);     \
    if (dw.function == NULL)                          \
        return false;
    DW_FUNCTIONS(X)
#undef X
    callbacks.find_elf = dw.dwfl_build_id_find_elf;
    callbacks.section_address = dw.dwfl_offline_section_address;
    return dw.ready = true;
}

/* ---- modules ----------------------------------------------------------------------------------------- */

static bool right_file(Dwfl_Module *mod, const struct maps_module *m)
{
    const unsigned char *bits;
    GElf_Addr at;
    int n = dw.dwfl_module_build_id(mod, &bits, &at);
    return n <= 0 || m->build_id_bytes == 0 || ((unsigned)n == m->build_id_bytes && memcmp(bits, m->build_id, (size_t)n) == 0);
}

/* From here on the file is in memory, and its descriptor is not used any more: the next helper has other ones, [FILES] in helper.h. */
static void read_all(Elf *elf)
{
    if (elf != NULL)
        dw.elf_cntl(elf, ELF_C_FDREAD);
}

static void module_read(Dwfl_Module *mod)
{
    GElf_Addr bias;
    read_all(dw.dwfl_module_getelf(mod, &bias));
    Dwarf *dbg = dw.dwfl_module_getdwarf(mod, &bias);
    if (dbg == NULL)
        return;
    read_all(dw.dwarf_getelf(dbg));
    Dwarf *alt = dw.dwarf_getalt(dbg);
    if (alt != NULL)
        read_all(dw.dwarf_getelf(alt));
}

static void module_open(struct sym_module *s, const struct maps_module *m)
{
    int fd = open(m->open_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    s->dwfl = dw.dwfl_begin(&callbacks);
    if (s->dwfl == NULL) {
        close(fd);
        return;
    }
    dw.dwfl_report_begin(s->dwfl);
    s->mod = dw.dwfl_report_elf(s->dwfl, m->path, m->path, fd, m->bias, true);
    if (s->mod == NULL)
        close(fd);
    dw.dwfl_report_end(s->dwfl, NULL, NULL);
    if (s->mod != NULL && !right_file(s->mod, m))
        s->mod = NULL;
    if (s->mod != NULL)
        module_read(s->mod);
}

/* NULL: no memory. */
static struct sym_module *module_get(struct maps_module *m)
{
    if (m->user == NULL) {
        struct sym_module *s = off_zalloc(OFF_PROF, sizeof *s);
        if (s != NULL && dw_load())
            module_open(s, m);
        m->user = s;
    }
    return m->user;
}

void symbols_gone(struct maps_module *m)
{
    struct sym_module *s = m->user;
    m->user = NULL;
    if (s == NULL)
        return;
    if (s->dwfl != NULL)
        dw.dwfl_end(s->dwfl);
    for (struct text *t = s->texts, *next; t != NULL; t = next) {
        next = t->next;
        off_free(OFF_PROF, t);
    }
    off_free(OFF_PROF, s);
}

/* ---- texts --------------------------------------------------------------------------------------------- */

static const char *path_join(struct sym_module *s, const char *dir, const char *file)
{
    if (file == NULL || file[0] == '/' || dir == NULL)
        return file;
    size_t nd = strlen(dir), nf = strlen(file);
    for (struct text *t = s->texts; t != NULL; t = t->next)
        if (strncmp(t->s, dir, nd) == 0 && t->s[nd] == '/' && strcmp(t->s + nd + 1, file) == 0)
            return t->s;
    struct text *t = off_alloc(OFF_PROF, sizeof *t + nd + nf + 2);
    if (t == NULL)
        return file;
    memcpy(t->s, dir, nd);
    t->s[nd] = '/';
    memcpy(t->s + nd + 1, file, nf + 1);
    t->next = s->texts;
    s->texts = t;
    return t->s;
}

static const char *unit_dir(Dwarf_Die *cu)
{
    Dwarf_Attribute at;
    return dw.dwarf_formstring(dw.dwarf_attr(cu, DW_AT_comp_dir, &at));
}

/* As it is written; of C++ and the like as the linker knows it, since the written one is not complete. */
static const char *function_name(Dwarf_Die *die)
{
    Dwarf_Attribute at;
    const char *s = dw.dwarf_formstring(dw.dwarf_attr_integrate(die, DW_AT_linkage_name, &at));
    const char *name = dw.dwarf_formstring(dw.dwarf_attr_integrate(die, DW_AT_name, &at));
    bool mangled = s != NULL && (strncmp(s, "_Z", 2) == 0 || strncmp(s, "_R", 2) == 0);
    return mangled || name == NULL ? s : name;
}

/* ---- DWARF ----------------------------------------------------------------------------------------------- */

#define DEPTH_MAX 64

struct chain { Dwarf_Die die[DEPTH_MAX]; unsigned n; }; /* function, then what is inlined in it at the address, outermost first */

static bool is_function(int tag) { return tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine; }

/* Goes down from die's children along those that hold pc. */
static void chain_find(Dwarf_Die *parent, Dwarf_Addr pc, struct chain *c, unsigned depth)
{
    Dwarf_Die die;
    if (depth == DEPTH_MAX || dw.dwarf_child(parent, &die) != 0)
        return;
    do {
        int tag = dw.dwarf_tag(&die);
        bool scope = tag == DW_TAG_namespace || tag == DW_TAG_module;
        if (!scope && !is_function(tag) && tag != DW_TAG_lexical_block)
            continue;
        if (!scope && dw.dwarf_haspc(&die, pc) <= 0)
            continue;
        if (is_function(tag) && c->n < DEPTH_MAX)
            c->die[c->n++] = die;
        unsigned before = c->n;
        chain_find(&die, pc, c, depth + 1);
        if (!scope || c->n > before)
            return;
    } while (dw.dwarf_siblingof(&die, &die) == 0);
}

/* The unit that holds the address; *bias is what the addresses of the module differ by. */
static Dwarf_Die *unit_find(Dwfl_Module *mod, Dwarf_Addr addr, Dwarf_Addr *bias)
{
    Dwarf_Die *cu = dw.dwfl_module_addrdie(mod, addr, bias);
    if (cu != NULL)
        return cu;
    while ((cu = dw.dwfl_module_nextcu(mod, cu, bias)) != NULL)
        if (dw.dwarf_haspc(cu, addr - *bias) > 0)
            return cu;
    return NULL;
}

/* Where the code of an inlined function was called from. */
static void call_site(struct sym_module *s, Dwarf_Die *cu, Dwarf_Die *die, struct symbol *to)
{
    Dwarf_Attribute at;
    Dwarf_Word file = 0, line = 0;
    Dwarf_Files *files;
    to->file = NULL;
    to->line = 0;
    if (dw.dwarf_formudata(dw.dwarf_attr(die, DW_AT_call_line, &at), &line) == 0)
        to->line = (uint32_t)line;
    if (dw.dwarf_formudata(dw.dwarf_attr(die, DW_AT_call_file, &at), &file) == 0 && dw.dwarf_getsrcfiles(cu, &files, NULL) == 0)
        to->file = path_join(s, unit_dir(cu), dw.dwarf_filesrc(files, file, NULL, NULL));
}

static unsigned dwarf_symbols(struct sym_module *s, Dwarf_Addr addr, struct symbol *out)
{
    Dwarf_Addr bias = 0;
    Dwarf_Die *cu = unit_find(s->mod, addr, &bias);
    if (cu == NULL)
        return 0;
    struct chain c = { .n = 0 };
    chain_find(cu, addr - bias, &c, 0);
    if (c.n == 0)
        return 0;
    struct symbol at = { 0 };
    Dwarf_Line *line = dw.dwarf_getsrc_die(cu, addr - bias);
    int no = 0;
    if (line != NULL) {
        at.file = path_join(s, unit_dir(cu), dw.dwarf_linesrc(line, NULL, NULL));
        if (dw.dwarf_lineno(line, &no) == 0)
            at.line = (uint32_t)no;
    }
    unsigned n = 0;
    for (unsigned i = c.n; i-- > 0;) {
        Dwarf_Die *die = &c.die[i];
        at.func = function_name(die);
        at.inlined = dw.dwarf_tag(die) == DW_TAG_inlined_subroutine;
        Dwarf_Addr entry;
        at.offset = !at.inlined && dw.dwarf_entrypc(die, &entry) == 0 ? addr + 1 - bias - entry : 0;
        if (n == SYMBOLS_INLINED_MAX) /* too many: the innermost ones go */
            memmove(out, out + 1, --n * sizeof *out);
        out[n++] = at;
        if (!at.inlined)
            break;
        call_site(s, cu, die, &at);
    }
    out[n - 1].inlined = false;
    return n;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

unsigned symbols_at(const struct maps *t, uintptr_t return_pc, struct symbol *out)
{
    uintptr_t addr = return_pc - 1; /* in the call, not behind it */
    struct maps_module *m = maps_find(t, addr);
    *out = (struct symbol){ 0 };
    if (m == NULL)
        return 1;
    int err = errno;
    struct sym_module *s = module_get(m);
    unsigned n = 0;
    if (s != NULL && s->mod != NULL) {
        n = dwarf_symbols(s, addr, out);
        if (n == 0 || out[n - 1].func == NULL) {
            GElf_Off off;
            GElf_Sym sym;
            const char *name = dw.dwfl_module_addrinfo(s->mod, addr, &off, &sym, NULL, NULL, NULL);
            if (name != NULL) {
                n = w_max(n, 1u);
                out[n - 1].func = name;
                out[n - 1].offset = off + 1;
            }
        }
    }
    errno = err;
    if (n > 0 && out[n - 1].func != NULL) {
        if (out[n - 1].file == NULL)
            out[n - 1].file = m->path;
        return n;
    }
    *out = (struct symbol){ .file = m->path, .offset = return_pc - m->bias };
    return 1;
}

bool symbols_data(const struct maps *t, uintptr_t addr, const char **name, uint64_t *offset, const char **module)
{
    struct maps_module *m = maps_find(t, addr);
    if (module != NULL)
        *module = m != NULL ? m->path : NULL;
    if (m == NULL)
        return false;
    int err = errno;
    struct sym_module *s = module_get(m);
    GElf_Off off = 0;
    GElf_Sym sym = { 0 };
    *name = s != NULL && s->mod != NULL ? dw.dwfl_module_addrinfo(s->mod, addr, &off, &sym, NULL, NULL, NULL) : NULL;
    *offset = off;
    errno = err;
    return *name != NULL && GELF_ST_TYPE(sym.st_info) == STT_OBJECT && off < sym.st_size; /* else it is the nearest one before */
}

static void forget(void *arg)
{
    (void)arg;
    maps_close(symbols_gone);
}

void symbols_end(w_u32 *kept)
{
    if (xchg_acq(kept, 0) != 0) /* acq: nobody reads any more; rel by who has seen that (a join, a mutex, the end of all threads) */
        helper_run(forget, NULL); /* no thread to be had: they are kept */
}
