/* data.c - objects: how they are made and compared; symbols; hash tables.
 *
 * A table hashes what its keys are: eq? tables an address (objects do not move) or a small integer, equal? tables the contents. In a weak table
 * an entry holds its key by a weak pointer, and its value as usual: the entry goes when the key has died, unless the value itself leads
 * to the key. Dead entries are unlinked by whoever walks their chain and when the table would grow. */
#include "vm.h"

#include <stdarg.h>
#include <string.h>

struct types types;

void data_init(void)
{
    types = (struct types){
        .pair = MEM_STORED(struct pair, car, cdr),
        .symbol = MEM_STORED(struct symbol, next, name, v),
        .proto = MEM_TYPE(struct proto, code, lines, consts, name, file),
        .error = MEM_TYPE(struct error, message, irritants, where),
        .entry = MEM_STORED(struct entry, next, key, v),
        .table = MEM_STORED(struct table, slots),
        .port = MEM_TYPE(struct port, buf, name),
        .cont = MEM_TYPE(struct cont, outer, chunk, sp, handler),
        .box = MEM_STORED(struct box, v),
    };
}

value make_flonum(struct vm *vm, double d)
{
    struct flonum *f = (struct flonum *)check_memory(vm, mem_bytes(sizeof *f));
    f->head = make_head(T_FLONUM, 0);
    f->d = d;
    return (value)f;
}

value make_string(struct vm *vm, const char *s, size_t n)
{
    struct string *r = (struct string *)check_memory(vm, mem_bytes(sizeof *r + n + 1));
    r->head = make_head(T_STRING, n);
    if (s)
        memcpy(r->b, s, n);
    return (value)r;
}

struct vector *new_vector(struct vm *vm, size_t n)
{
    struct vector *v = (struct vector *)check_memory(vm, n > PTRDIFF_MAX / sizeof(value) - 2 ? NULL : mem_slots(sizeof *v + n * sizeof(value)));
    v->head = make_head(T_VECTOR, n);
    return v;
}

value make_vector(struct vm *vm, size_t n, value fill)
{
    struct vector *v = new_vector(vm, n);
    for (size_t i = 0; i < n; i++)
        mem_store(&v->at[i], fill);
    return (value)v;
}

value make_error(struct vm *vm, value message, value irritants, value where)
{
    struct error *e = (struct error *)check_memory(vm, mem_new(types.error));
    *e = (struct error){ make_head(T_ERROR, 0), message, irritants, where };
    return (value)e;
}

value list(struct vm *vm, int n, ...)
{
    value items[8];
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        items[i] = va_arg(ap, value);
    va_end(ap);
    value r = V_NIL;
    while (n > 0)
        r = cons(vm, items[--n], r);
    return r;
}

int64_t list_length(value v)
{
    int64_t n = 0;
    for (value slow = v; is_pair(v); n++) {
        v = cdr(v);
        if (n & 1)
            slow = cdr(slow);
        if (n && slow == v && is_pair(v))
            return -1;
    }
    return v == V_NIL ? n : -1;
}

value list_reverse(struct vm *vm, value v)
{
    value r = V_NIL;
    for (; is_pair(v); v = cdr(v))
        r = cons(vm, car(v), r);
    return r;
}

/* ---- equality and hashes --------------------------------------------------------------------------- */

bool eqv(value a, value b)
{
    return a == b || (is(a, T_FLONUM) && is(b, T_FLONUM) && ((struct flonum *)a)->d == ((struct flonum *)b)->d);
}

/* Too deep for the C stack: *deep is set. So a table can compare under its lock. */
static bool equal_deep(struct vm *vm, value a, value b, bool *deep)
{
    if (vm_too_deep(vm)) {
        *deep = true;
        return false;
    }
    for (; is_pair(a) && is_pair(b); a = cdr(a), b = cdr(b))
        if (car(a) != car(b) && !equal_deep(vm, car(a), car(b), deep))
            return false;
    if (eqv(a, b))
        return true;
    if (is(a, T_STRING) && is(b, T_STRING))
        return length_of(a) == length_of(b) && memcmp(((struct string *)a)->b, ((struct string *)b)->b, length_of(a)) == 0;
    if (!is(a, T_VECTOR) || !is(b, T_VECTOR) || length_of(a) != length_of(b))
        return false;
    for (size_t i = 0; i < length_of(a); i++)
        if (!equal_deep(vm, ((struct vector *)a)->at[i], ((struct vector *)b)->at[i], deep))
            return false;
    return true;
}

bool equal(struct vm *vm, value a, value b)
{
    bool deep = false, r = equal_deep(vm, a, b, &deep);
    if (deep)
        vm_error(vm, "equal?: nested too deeply", V_UNDEF);
    return r;
}

static uint64_t mix(uint64_t h) { return (h ^ h >> 29) * UINT64_C(0x9e3779b97f4a7c15); }

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n + 1;
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, s, 8);
        h = mix(h ^ word);
    }
    while (n)
        h = mix(h ^ (unsigned char)s[--n]);
    return h ^ h >> 32;
}

static uint64_t hash_eqv(value v)
{
    uint64_t h = is(v, T_FLONUM) ? hash_bytes((char *)&((struct flonum *)v)->d, sizeof(double)) : mix(v);
    return h ^ h >> 32;
}

/* Of a large structure the first nodes are enough. */
static uint64_t hash_equal(value v, int *nodes)
{
    uint64_t h = 1;
    for (; is_pair(v) && *nodes > 0; v = cdr(v)) {
        --*nodes;
        h = mix(h ^ hash_equal(car(v), nodes));
    }
    if (is(v, T_STRING))
        return h ^ hash_bytes(((struct string *)v)->b, length_of(v));
    if (is(v, T_VECTOR)) {
        for (size_t i = 0; i < length_of(v) && --*nodes > 0; i++)
            h = mix(h ^ hash_equal(((struct vector *)v)->at[i], nodes));
        return h;
    }
    return is_pair(v) ? h : h ^ hash_eqv(v);
}

/* ---- symbols --------------------------------------------------------------------------------------- */

/* Under symbol_lock. No memory for more slots is no error: chains get longer. */
static void symbols_grow(struct world *w)
{
    size_t n = w->symbols ? 2 * (w->symbol_mask + 1) : 1024;
    struct symbol **slots = mem_slots(n * sizeof *slots);
    if (!slots)
        return;
    for (size_t i = 0; w->symbols && i <= w->symbol_mask; i++)
        for (struct symbol *s = w->symbols[i], *next; s; s = next) {
            next = s->next;
            size_t to = hash_bytes(((struct string *)s->name)->b, length_of(s->name)) & (n - 1);
            mem_store(&s->next, slots[to]);
            mem_store(&slots[to], s);
        }
    w->symbols = slots;
    w->symbol_mask = n - 1;
}

static struct symbol *symbol_find(struct world *w, const char *s, size_t n, uint64_t hash)
{
    struct symbol *y = w->symbols ? w->symbols[hash & w->symbol_mask] : NULL;
    while (y && (length_of(y->name) != n || memcmp(((struct string *)y->name)->b, s, n) != 0))
        y = y->next;
    return y;
}

value intern(struct vm *vm, const char *s, size_t n)
{
    struct world *w = vm->world;
    uint64_t hash = hash_bytes(s, n);
    mem_lock_take(&w->symbol_lock);
    struct symbol *y = symbol_find(w, s, n, hash);
    mem_lock_drop(&w->symbol_lock);
    if (y)
        return (value)y;
    struct symbol *fresh = (struct symbol *)check_memory(vm, mem_new(types.symbol));
    fresh->head = make_head(T_SYMBOL, 0);
    fresh->v = V_UNDEF;
    mem_store(&fresh->name, make_string(vm, s, n));
    mem_lock_take(&w->symbol_lock);
    if (!(y = symbol_find(w, s, n, hash))) { /* nobody was faster */
        if (!w->symbols || w->symbol_count++ > w->symbol_mask)
            symbols_grow(w);
        if (w->symbols) {
            struct symbol **slot = &w->symbols[hash & w->symbol_mask];
            mem_store(&fresh->next, *slot);
            mem_store(slot, y = fresh);
        }
    }
    mem_lock_drop(&w->symbol_lock);
    return check_memory(vm, y);
}

value symbol(struct vm *vm, const char *s) { return intern(vm, s, strlen(s)); }

/* ---- tables ---------------------------------------------------------------------------------------- */

enum { TABLE_MIN_SLOTS = 8, HASH_NODES = 32 };

value make_table(struct vm *vm, enum table_kind kind)
{
    struct entry **slots = (struct entry **)check_memory(vm, mem_slots(TABLE_MIN_SLOTS * sizeof *slots));
    struct table *t = (struct table *)check_memory(vm, mem_new(types.table));
    t->head = make_head(T_TABLE, 0);
    t->mask = TABLE_MIN_SLOTS - 1;
    t->kind = kind;
    mem_store(&t->slots, slots);
    return (value)t;
}

static uint64_t table_hash(struct table *t, value key)
{
    int nodes = HASH_NODES;
    return t->kind == TABLE_EQUAL ? hash_equal(key, &nodes) : hash_eqv(key);
}

/* A weak pointer keeps the tag of a pair, being one to the inside of an object. */
static bool held_weakly(struct table *t, value key) { return t->kind == TABLE_WEAK && (is_pair(key) || is_object(key)); }

/* The key of an entry; 0: it has died. */
static value entry_key(struct table *t, struct entry *e)
{
    return held_weakly(t, e->key) ? (value)mem_weak_get((mem_weak *)e->key) : e->key;
}

/* Under the lock. The place that points to the entry with this key, or to NULL at the end of its chain; dead entries on the way are unlinked. */
static struct entry **table_place(struct vm *vm, struct table *t, value key, uint64_t hash, bool *deep)
{
    struct entry **at = &t->slots[hash & t->mask], *e;
    while ((e = *at) != NULL) {
        value k = entry_key(t, e);
        if (k == 0) {
            mem_store(at, e->next);
            t->count--;
        } else if (e->hash == hash && (k == key || (t->kind != TABLE_WEAK && eqv(k, key)) ||
                                       (t->kind == TABLE_EQUAL && equal_deep(vm, k, key, deep)))) {
            break;
        } else {
            at = &e->next;
        }
    }
    return at;
}

/* Under the lock. Unlinks what is dead, then doubles if it is still too full. No memory for it is no error: chains get longer. */
static void table_grow(struct table *t)
{
    for (size_t i = 0; t->kind == TABLE_WEAK && i <= t->mask; i++)
        for (struct entry **at = &t->slots[i]; *at;) {
            if (entry_key(t, *at) == 0) {
                mem_store(at, (*at)->next);
                t->count--;
            } else {
                at = &(*at)->next;
            }
        }
    size_t n = 2 * (t->mask + 1);
    if (t->count < n / 2 - n / 8)
        return;
    struct entry **slots = mem_slots(n * sizeof *slots);
    if (!slots)
        return;
    for (size_t i = 0; i <= t->mask; i++)
        for (struct entry *e = t->slots[i], *next; e; e = next) {
            next = e->next;
            mem_store(&e->next, slots[e->hash & (n - 1)]);
            mem_store(&slots[e->hash & (n - 1)], e);
        }
    mem_store(&t->slots, slots);
    t->mask = n - 1;
}

static void table_unlock(struct vm *vm, struct table *t, bool deep)
{
    mem_lock_drop(&t->lock);
    if (deep)
        vm_error(vm, "hash table: a key is nested too deeply", V_UNDEF);
}

value table_get(struct vm *vm, struct table *t, value key, value otherwise)
{
    bool deep = false;
    uint64_t hash = table_hash(t, key);
    mem_lock_take(&t->lock);
    struct entry *e = *table_place(vm, t, key, hash, &deep);
    value v = e ? e->v : otherwise;
    table_unlock(vm, t, deep);
    return v;
}

void table_set(struct vm *vm, struct table *t, value key, value v)
{
    bool deep = false;
    uint64_t hash = table_hash(t, key);
    mem_lock_take(&t->lock);
    struct entry *e = *table_place(vm, t, key, hash, &deep);
    if (e)
        mem_store(&e->v, v);
    table_unlock(vm, t, deep);
    if (e)
        return;
    struct entry *fresh = (struct entry *)check_memory(vm, mem_new(types.entry));
    value held = held_weakly(t, key) ? check_memory(vm, mem_weak_make((void *)key)) : key;
    fresh->hash = hash;
    mem_store(&fresh->key, held);
    mem_store(&fresh->v, v);
    mem_lock_take(&t->lock);
    struct entry **at = table_place(vm, t, key, hash, &deep);
    if (*at) { /* somebody was faster */
        mem_store(&(*at)->v, v);
    } else {
        mem_store(at, fresh);
        if (++t->count > t->mask)
            table_grow(t);
    }
    table_unlock(vm, t, deep);
}

void table_delete(struct vm *vm, struct table *t, value key)
{
    bool deep = false;
    uint64_t hash = table_hash(t, key);
    mem_lock_take(&t->lock);
    struct entry **at = table_place(vm, t, key, hash, &deep);
    if (*at) {
        mem_store(at, (*at)->next);
        t->count--;
    }
    table_unlock(vm, t, deep);
}

/* What is there is copied under the lock, as far as there is room, and made a list without it. */
static size_t table_copy(struct table *t, value *keys, value *values, size_t room)
{
    size_t n = 0;
    mem_lock_take(&t->lock);
    for (size_t i = 0; i <= t->mask; i++)
        for (struct entry *e = t->slots[i]; e; e = e->next) {
            value k = entry_key(t, e);
            if (k != 0 && n++ < room) {
                mem_store(&keys[n - 1], k);
                mem_store(&values[n - 1], e->v);
            }
        }
    mem_lock_drop(&t->lock);
    return n;
}

size_t table_count(struct table *t) { return t->kind == TABLE_WEAK ? table_copy(t, NULL, NULL, 0) : t->count; }

value table_to_list(struct vm *vm, struct table *t)
{
    size_t room = table_count(t);
    struct vector *keys = (struct vector *)make_vector(vm, room, V_NIL), *values = (struct vector *)make_vector(vm, room, V_NIL);
    size_t n = table_copy(t, keys->at, values->at, room);
    value r = V_NIL;
    for (size_t i = n < room ? n : room; i-- > 0;)
        r = cons(vm, cons(vm, keys->at[i], values->at[i]), r);
    return r;
}
