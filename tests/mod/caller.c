/* Calls back from a module, so that a stack has frames in it. */
void mod_call(void (*fn)(void *), void *arg);

void mod_call(void (*fn)(void *), void *arg)
{
    fn(arg);
    __asm__ volatile(""); /* no tail call */
}
