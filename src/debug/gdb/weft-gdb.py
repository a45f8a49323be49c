"""weft for gdb: fibers, their stacks, and the heap, of a live process or a core file.

    (gdb) source PREFIX/share/weft/weft-gdb.py
    (gdb) weft fibers          all fibers: number, state, for how long, what they run, who made them
    (gdb) weft bt 7            the stack of fiber 7; weft bt all: of all
    (gdb) weft enter 7         ... and stay there: up, down, info locals, print
    (gdb) weft leave
    (gdb) weft heap            spans and objects by size; how much is live, and the goal

With libweft.so under /usr, gdb loads it by itself; with libweft.a, or elsewhere, `source` it (or put that line into ~/.gdbinit). It reads the library's
debug information (made with -g, which is the default; libweft.so.N.debug beside it will do), and changes nothing in the process.

How a parked fiber's stack is shown: its registers lie at fiber.sp, as struct arch_frame. An unwinder says that the frame of the selected thread was
called by what these registers say. So everything from frame 1 on is the fiber's, found by gdb's own means, and works in core files, too, whose registers
cannot be set.

Nothing here takes a lock or calls a function of the process: what is shown is memory as it stands. In a process that was stopped in the middle of
something a fiber may be between two states; it is then shown as in one of them."""

import struct
import time

import gdb
import gdb.unwinder

STATES = ("free", "runnable", "running", "waiting", "dead")  # enum fiber_state
RUNNABLE, RUNNING, WAITING = 1, 2, 3
FLAG_THREAD, FLAG_SYSTEM = 1, 2
COLOURS, COLOUR_BYTES, CACHE_LINE = 16, 128, 64  # sched/stack.c
PAGE_SHIFT, CLASS_LARGE, PAGE_NOSCAN = 13, 127, 128  # gc/heap.h
NO_TIME = "-"


def variable(file, name):
    try:
        return gdb.parse_and_eval("'src/%s'::%s" % (file, name))
    except gdb.error:
        raise gdb.GdbError("weft: no debug information of libweft: is it loaded, and made with -g?")


def plain(value):
    """The number in a w_u32, w_u64, ... or the pointer in a W_PTR."""
    return value["v"]


def memory(address, size):
    """Bytes; None where there are none (a guard, a page that the core file does not have)."""
    try:
        return gdb.selected_inferior().read_memory(int(address), size).tobytes()
    except gdb.error:
        return None


def text_at(address):
    """A string of C's."""
    if int(address) == 0:
        return ""
    try:
        return gdb.Value(int(address)).cast(gdb.lookup_type("char").pointer()).string(errors="replace", length=-1)
    except gdb.error:
        return "?"


FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Layout:
    """Fields of a struct, read from its bytes at once: there may be a million of them."""

    def __init__(self, type_, names):
        self.type = type_.strip_typedefs()
        self.size = self.type.sizeof
        self.fields = {}
        for name in names:
            f = self.type[name]
            size = f.type.strip_typedefs().sizeof
            self.fields[name] = (f.bitpos // 8, "<" + FORMATS.get(size, "B"))

    def read(self, data, name):
        offset, form = self.fields[name]
        return struct.unpack_from(form, data, offset)[0]


def function_at(pc, innermost=True):
    """The function at an address, or its symbol; innermost: be it inlined there."""
    block, name = gdb.block_for_pc(pc), None
    while block is not None and not block.is_global and not block.is_static:
        if block.function is not None and not (name and innermost):
            name = block.function.name
        block = block.superblock
    if name:
        return name
    said = gdb.execute("info symbol 0x%x" % pc, to_string=True)
    return said.split(" ")[0] if " in section" in said else "0x%x" % pc


def place_at(return_address):
    """Function and line of the call that returns there."""
    if return_address == 0:
        return ""
    pc = return_address - 1
    line = gdb.find_pc_line(pc)
    where = function_at(pc)
    if line.symtab is not None:
        where += " at %s:%d" % (line.symtab.filename.split("/")[-1], line.line)
    return where


def duration(ns):
    if ns < 0:
        return NO_TIME
    s = ns // 1000000000
    if s >= 3600:
        return "%dh%02dm" % (s // 3600, s // 60 % 60)
    if s >= 60:
        return "%dm%02ds" % (s // 60, s % 60)
    return "%d.%ds" % (s, ns // 100000000 % 10) if s > 0 else "%dms" % (ns // 1000000)


class Fiber:
    """at: address of its struct fiber, or 0 for one that has not started (struct task)."""

    def __init__(self, **known):
        self.at, self.sp, self.bound, self.since, self.name, self.machine, self.thread = 0, 0, 0, 0, "", None, None
        self.__dict__.update(known)


class Runtime:
    """A look at the process as it is now."""

    def __init__(self):
        self.sched = variable("sched/runtime.c", "sched")
        if int(plain(self.sched["running"])) == 0:
            raise gdb.GdbError("weft: the runtime does not run")
        self.machine = plain(self.sched["all_m"]).type.target()
        self.fiber = self.machine["cur"].type.target()
        names = ("state", "id", "fn", "site", "sp", "why", "flags", "bound", "since_ns", "name")
        self.fiber_layout = Layout(self.fiber, names)
        self.reasons = self.wait_reasons()
        self.machines = {}  # by address
        self.runs = {}  # fiber -> machine that runs it, or has it outside in a blocking call
        m = plain(self.sched["all_m"])
        while int(m) != 0:
            if int(plain(m["dead"])) == 0:
                self.machines[int(m)] = m
                for name in ("cur", "blocked"):
                    if int(m[name]) != 0 and (name == "cur" or m["blocking"]):
                        self.runs[int(m[name])] = m
            m = m["all_next"]
        self.threads = {t.ptid[1] or t.ptid[0]: t for t in gdb.selected_inferior().threads()}

    def wait_reasons(self):
        table = variable("sched/switch.c", "wait_reason_text::text")
        return {i: table[i].string() for i in range(table.type.range()[1] + 1)}

    def now_ns(self):
        """Of the clock that since_ns is of. A core file has no clock but what the monitor saw last."""
        coarse = int(plain(self.sched["coarse_ns"]))
        return max(coarse, time.clock_gettime_ns(time.CLOCK_MONOTONIC)) if is_live() else coarse

    def descriptors(self):
        """Of all slots of stacks: address and bytes."""
        stacks = variable("sched/stack.c", "stacks")
        size = self.fiber.sizeof
        for i in range(int(plain(stacks["narenas"]))):
            a = stacks["arenas"][i].dereference()
            base, log2, used = int(a["base"]), int(a["log2"]), int(plain(a["used"]))
            bits = memory(a["clean"].address, (used + 63) // 64 * 8) or b""
            for s in range(used):
                if s // 8 < len(bits) and bits[s // 8] >> s % 8 & 1:
                    continue  # without memory
                slot = base + (s << log2)
                end = slot + (1 << log2) - ((slot >> log2) * 5 % COLOURS) * COLOUR_BYTES
                at = (end - size) & ~(CACHE_LINE - 1)
                data = memory(at, size)
                if data is not None:
                    yield at, data

    def started(self, at, data):
        read = self.fiber_layout.read
        return Fiber(at=at, id=read(data, "id"), state=read(data, "state"), fn=read(data, "fn"), site=read(data, "site"), sp=read(data, "sp"),
                     why=self.reasons.get(read(data, "why"), "waiting"), flags=read(data, "flags"), bound=read(data, "bound"),
                     since=read(data, "since_ns"), name=text_at(read(data, "name")))

    def tasks(self):
        """Fibers that have not started."""
        slab = plain(variable("sched/task.c", "tasks")["all"])
        layout = None
        while int(slab) != 0:
            first = slab["task"]
            if layout is None:
                task = first.type.target()
                layout = Layout(task, ("id", "fn", "site", "name"))
            base, n = int(first.address), int(slab["fresh"])
            data = memory(base, n * layout.size) or b""
            for i in range(len(data) // layout.size):
                one = data[i * layout.size:(i + 1) * layout.size]
                if layout.read(one, "id") != 0:
                    yield Fiber(id=layout.read(one, "id"), state=RUNNABLE, fn=layout.read(one, "fn"), site=layout.read(one, "site"), flags=0,
                                why="", name=text_at(layout.read(one, "name")))
            slab = slab["next"]

    def fibers(self):
        """All of them, by number; of the runtime's own the flags have FLAG_SYSTEM."""
        found = {}
        for at, data in self.descriptors():
            if self.fiber_layout.read(data, "state") in (RUNNABLE, RUNNING, WAITING) and self.fiber_layout.read(data, "id") != 0:
                f = self.started(at, data)
                found[f.id] = f
        for f in found.values():
            self.place(f)
        for f in self.tasks():
            found.setdefault(f.id, f)
        return [found[i] for i in sorted(found)]

    def place(self, f):
        """The machine and thread that it is on, if it is on one: it runs, is outside in a blocking call, or its thread sleeps with it."""
        m = self.runs.get(f.at)
        if m is None and f.state == WAITING and f.bound in self.machines:
            m = self.machines[f.bound]
        f.machine = m
        f.thread = self.threads.get(int(m["tid"])) if m is not None else None

    def find(self, number):
        for f in self.fibers():
            if f.id == number:
                return f
        raise gdb.GdbError("weft: there is no fiber %d" % number)


def is_live():
    """A process of this machine."""
    connection = getattr(gdb.selected_inferior(), "connection", None)
    return connection is not None and connection.type == "native"


def state_of(f):
    if f.at == 0:
        return "runnable, not started"
    if f.machine is not None and f.state != WAITING:
        where = "running" if not f.machine["blocking"] else "syscall"
        return where + (", thread %d" % f.thread.num if f.thread is not None else "")
    if f.state == WAITING:
        return f.why
    return STATES[f.state]


# ---- frames of a fiber ------------------------------------------------------------------------------------------

REGISTERS = {
    "x86_64": ("rsp", "rip", {n: n for n in ("rip", "rbp", "rbx", "r12", "r13", "r14", "r15")}),
    "aarch64": ("sp", "pc", dict({"x%d" % n: "x%d" % n for n in range(19, 31)}, pc="x30")),
}


class FiberUnwinder(gdb.unwinder.Unwinder):
    """While a fiber is entered: the frame of the selected thread was called from where the fiber is parked."""

    def __init__(self):
        super().__init__("weft fiber")
        self.fiber = None

    def enter(self, fiber, frame_type):
        arch = gdb.selected_frame().architecture().name()
        key = "x86_64" if "x86-64" in arch else "aarch64" if "aarch64" in arch else None
        if key is None:
            raise gdb.GdbError("weft: stacks of fibers are not known on %s" % arch)
        self.leave()
        gdb.newest_frame().select()
        self.sp_name, self.pc_name, self.names = REGISTERS[key]
        self.real_sp = int(gdb.newest_frame().read_register(self.sp_name))
        frame = gdb.Value(fiber.sp).cast(frame_type.pointer()).dereference()
        self.values = {register: int(frame[field]) for register, field in self.names.items()}
        self.values[self.sp_name] = fiber.sp + frame_type.sizeof
        self.fiber = fiber
        gdb.invalidate_cached_frames()

    def leave(self):
        if self.fiber is not None:
            self.fiber = None
            gdb.invalidate_cached_frames()

    def __call__(self, pending):
        if self.fiber is None:
            return None
        sp = pending.read_register(self.sp_name)
        if int(sp) != self.real_sp:
            return None
        pc = pending.read_register(self.pc_name)
        # Frames further out lie higher, or gdb believes that the stack is damaged: so this one lies just below the fiber's
        info = pending.create_unwind_info(Id(gdb.Value(self.fiber.sp - 16).cast(sp.type), pc))
        for name, value in self.values.items():
            info.add_saved_register(name, gdb.Value(value).cast(pending.read_register(name).type))
        return info


class Id:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


unwinder = FiberUnwinder()


class Inside:
    """with Inside(runtime, fiber): the selected thread's frames are the fiber's."""

    def __init__(self, runtime, fiber):
        self.frame_type = runtime.machine["block_frame"].type
        self.fiber = fiber

    def __enter__(self):
        self.entered = unwinder.fiber
        unwinder.enter(self.fiber, self.frame_type)

    def __exit__(self, *_):
        unwinder.leave()
        if self.entered is not None:
            unwinder.enter(self.entered, self.frame_type)


def parked_stack(runtime, fiber):
    with Inside(runtime, fiber):
        lines = gdb.execute("backtrace", to_string=True).splitlines()
    while lines and not lines[0].startswith("#1 "):  # frame 0 is the thread's
        lines.pop(0)
    return lines


def thread_stack(fiber):
    selected = gdb.selected_thread()
    frame = gdb.selected_frame()
    fiber.thread.switch()
    try:
        return gdb.execute("backtrace", to_string=True).splitlines()
    finally:
        selected.switch()
        frame.select()


def show_stack(runtime, f):
    made = place_at(f.site)
    print("fiber %d [%s]%s: %s" % (f.id, state_of(f), " " + f.name if f.name else "", function_at(f.fn, False) if f.fn else ""))
    if f.at == 0:
        pass
    elif f.machine is not None and f.thread is not None:
        print("\n".join(thread_stack(f)))
    elif f.machine is not None:
        print("  its thread (%d) is not there" % int(f.machine["tid"]))
    elif f.state == RUNNING:
        print("  it is between two states")
    else:
        print("\n".join(parked_stack(runtime, f)))
    if made:
        print("made by %s" % made)


# ---- commands -----------------------------------------------------------------------------------------------------


class Weft(gdb.Command):
    """weft fibers | weft bt ID|all | weft enter ID | weft leave | weft heap: fibers, their stacks, the heap of the runtime weft."""

    def __init__(self):
        super().__init__("weft", gdb.COMMAND_STACK, prefix=True)


class Fibers(gdb.Command):
    """weft fibers [all]: number, state, for how long, what it runs, who made it. all: those of the runtime itself, too."""

    def __init__(self):
        super().__init__("weft fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        rt = Runtime()
        now = rt.now_ns()
        rows, hidden = [], 0
        for f in rt.fibers():
            if f.flags & FLAG_SYSTEM and argument != "all":
                hidden += 1
                continue
            waits = duration(now - f.since) if f.at != 0 and f.state == WAITING and f.since > 0 else NO_TIME
            what = function_at(f.fn, False) if f.fn else ""
            rows.append((str(f.id), state_of(f), waits, what + (" (%s)" % f.name if f.name else ""), place_at(f.site)))
        heads = ("ID", "STATE", "FOR", "FUNCTION", "MADE BY")
        widths = [max(len(r[i]) for r in rows + [heads]) for i in range(4)]
        for r in [heads] + rows:
            print("  ".join([r[0].rjust(widths[0])] + [r[i].ljust(widths[i]) for i in (1, 2, 3)] + [r[4]]).rstrip())
        print("%d fiber%s%s" % (len(rows), "" if len(rows) == 1 else "s", ", and %d of the runtime (weft fibers all)" % hidden if hidden else ""))


class Bt(gdb.Command):
    """weft bt ID: the stack of a fiber; weft bt all: of all. Of one that runs: its thread's."""

    def __init__(self):
        super().__init__("weft bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        rt = Runtime()
        if argument == "all":
            for f in rt.fibers():
                if not f.flags & FLAG_SYSTEM:
                    show_stack(rt, f)
                    print("")
            return
        show_stack(rt, rt.find(number_of(argument)))


class Enter(gdb.Command):
    """weft enter ID: from now on the frames of the selected thread, from 1 on, are those of the parked fiber ID (up, info locals, print).
Until weft leave, or until the process goes on."""

    def __init__(self):
        super().__init__("weft enter", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        rt = Runtime()
        f = rt.find(number_of(argument))
        if f.thread is not None:
            unwinder.leave()
            f.thread.switch()
            print("fiber %d is on thread %d, which is selected now" % (f.id, f.thread.num))
            return
        if f.at == 0 or f.state == RUNNING:
            raise gdb.GdbError("weft: fiber %d has no stack to enter: %s" % (f.id, state_of(f)))
        unwinder.enter(f, rt.machine["block_frame"].type)
        gdb.execute("frame 1")


class Leave(gdb.Command):
    """weft leave: the frames of the selected thread are its own again."""

    def __init__(self):
        super().__init__("weft leave", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        unwinder.leave()
        gdb.newest_frame().select()


class Heap(gdb.Command):
    """weft heap: spans and objects by size, how much is live, and the goal."""

    def __init__(self):
        super().__init__("weft heap", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        Runtime()
        heap, pacer = variable("gc/span.c", "heap"), variable("gc/pacer.c", "pacer")
        committed, live = int(plain(heap["committed"])), int(plain(heap["live"]))
        by_class, used_pages = self.classes(heap, committed >> PAGE_SHIFT)
        print("%10s %8s %10s %10s %12s %10s" % ("SIZE", "SPANS", "OBJECTS", "IN USE", "BYTES", "KIND"))
        total = [0, 0, 0]
        for (size, noscan), (spans, room, used, nbytes) in sorted(by_class.items()):
            print("%10s %8d %10d %10d %12d %10s" % (size if size < 1 << 62 else "large", spans, room, used, nbytes, "noscan" if noscan else "scan"))
            for i, n in enumerate((spans, used, nbytes)):
                total[i] += n
        print("%10s %8d %10s %10d %12d" % ("all", total[0], "", total[1], total[2]))
        goal, percent, limit = int(plain(pacer["goal"])), int(plain(pacer["percent"])), int(plain(pacer["limit"]))
        print("live %d bytes (as the pacer counts: the last mark, and runs of slots given out since), goal %s, %s percent, %s" % (
            live, "none" if goal == (1 << 64) - 1 else "%d bytes" % goal, percent, "no limit" if limit == (1 << 63) - 1 else "limit %d bytes" % limit))
        print("heap at 0x%x: %d bytes committed, %d in spans" % (int(heap["base"]), committed, used_pages << PAGE_SHIFT))

    def classes(self, heap, pages):
        """(size, noscan) -> spans, objects there is room for, those in use, bytes of these. Large objects are one class."""
        info = variable("gc/class.c", "class_info")
        span = heap["spans"].dereference().type
        layout = Layout(span, ("nobj", "sweepgen", "npages"))
        allocs_at = span.strip_typedefs()["allocs"].bitpos // 8
        line = heap["bits"].dereference().type.sizeof
        sweepgen = int(plain(heap["sweepgen"]))
        found, used_pages, base = {}, 0, int(heap["spans"])
        words = {}
        for chunk in range(0, pages, 512):
            n = min(512, pages - chunk)
            table = memory(int(heap["pagemap"]) + 4 * chunk, 4 * n)
            entries = struct.unpack("<%dI" % n, table) if table is not None else ()
            starts = [i for i, e in enumerate(entries) if e & 127 and e >> 10 == 0]
            records = memory(base + chunk * layout.size, n * layout.size) if starts else None
            lines = memory(int(heap["bits"]) + chunk * line, n * line) if starts else None
            for i in starts if records is not None and lines is not None else ():
                cls, record = entries[i] & 127, records[i * layout.size:(i + 1) * layout.size]
                if cls not in words:
                    words[cls] = (int(info[cls]["nwords"]), int(info[cls]["size"]))
                nwords, size = words[cls]
                nobj, npages = layout.read(record, "nobj"), layout.read(record, "npages")
                swept = layout.read(record, "sweepgen") == sweepgen
                bits, at = lines, i * line
                if swept and 16 * nwords <= line:  # [SWEPT], [BITS]: allocation bits and not marks
                    at += 8 * nwords
                elif swept:
                    bits, at = record, allocs_at
                used = sum(bin(w).count("1") for w in struct.unpack_from("<%dQ" % nwords, bits, at))
                large = cls == CLASS_LARGE
                key = (1 << 62 if large else size, bool(entries[i] & PAGE_NOSCAN))
                spans, room, in_use, nbytes = found.get(key, (0, 0, 0, 0))
                size = npages << PAGE_SHIFT if large else size
                found[key] = (spans + 1, room + nobj, in_use + used, nbytes + used * size)
                used_pages += npages
        return found, used_pages


def number_of(argument):
    try:
        return int(argument)
    except ValueError:
        raise gdb.GdbError("weft: the number of a fiber is needed, as weft fibers shows it")


def goes_on(_):
    unwinder.fiber = None


for command in (Weft, Fibers, Bt, Enter, Leave, Heap):
    command()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)
gdb.events.cont.connect(goes_on)
