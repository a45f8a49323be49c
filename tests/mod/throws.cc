// Throws through frames with something to clean up.
extern "C" int mod_throw(int depth);

namespace {
struct counted {
    int *n;
    ~counted() { ++*n; }
};

__attribute__((noinline)) int throw_at(int depth, int *cleaned)
{
    counted c = { cleaned };
    if (depth == 0)
        throw 7;
    return throw_at(depth - 1, cleaned) + *c.n;
}
} // namespace

// How many frames were cleaned up.
extern "C" int mod_throw(int depth)
{
    int cleaned = 0;
    try {
        throw_at(depth, &cleaned);
    } catch (int) {
    }
    return cleaned;
}
