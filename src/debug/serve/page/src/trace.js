// Execution traces in Go's format, version 2 (src/trace/format.h says how the bytes lie): from the bytes to what the timeline draws.
//
// Each thread's events are in order and are followed alone: which processor it has, which fiber runs on it. That gives pieces of a lane, "fiber g ran
// on processor p from then to then". Only a processor that is taken away while its fiber is in a call is told by another thread; those pieces
// are cut afterwards, where the processor's next one begins.

const ARGS = { 9: 2, 10: 2, 11: 0, 12: 3, 13: 2, 14: 3, 15: 1, 16: 2, 17: 0, 18: 0, 19: 2, 20: 2, 21: 3, 22: 2, 23: 0, 24: 0, 25: 3, 26: 2, 27: 0, 28: 1,
  29: 2, 30: 1, 31: 1, 32: 1, 33: 2, 34: 1, 35: 1, 36: 0, 37: 1, 38: 1, 39: 1, 40: 4, 41: 2, 42: 3, 43: 3, 44: 4, 45: 2, 46: 2, 47: 3, 48: 4 }
const E = { BATCH: 1, STACKS: 2, STACK: 3, STRINGS: 4, STRING: 5, SAMPLES: 6, FREQUENCY: 8, PROC_START: 10, PROC_STOP: 11, PROC_STEAL: 12,
  PROC_STATUS: 13, GO_CREATE: 14, GO_CREATE_SYSCALL: 15, GO_START: 16, GO_DESTROY: 17, GO_DESTROY_SYSCALL: 18, GO_STOP: 19, GO_BLOCK: 20, GO_UNBLOCK: 21,
  SYSCALL_BEGIN: 22, SYSCALL_END: 23, SYSCALL_END_BLOCKED: 24, GO_STATUS: 25, STW_BEGIN: 26, STW_END: 27, GC_ACTIVE: 28, GC_BEGIN: 29, GC_END: 30,
  GO_LABEL: 39, USER_LOG: 44, GO_SWITCH: 45, GO_SWITCH_DESTROY: 46, GO_CREATE_BLOCKED: 47, GO_STATUS_STACK: 48, SYNC: 50, SNAPSHOT: 51, END: 52 }
const NO_ID = 18446744073709552000 // what ~0 is as a double

// The list under that key, a new one if there is none.
function listOf(map, key) {
  if (!map.has(key)) map.set(key, [])
  return map.get(key)
}

const pause = () => new Promise((done) => setTimeout(done))

export async function readTrace(bytes) {
  const header = String.fromCharCode(...bytes.subarray(0, 16))
  if (!/^go 1\.\d+ trace/.test(header)) throw new Error('This is not an execution trace.')
  const text = new TextDecoder()
  let at = 16
  const int = () => {
    let v = 0, scale = 1
    for (;;) {
      if (at >= bytes.length) throw new Error('The trace is cut short.')
      const b = bytes[at++]
      v += (b & 0x7f) * scale
      if (b < 0x80) return v
      scale *= 128
    }
  }

  // ---- batches, tables ----
  const gens = new Map()
  const gen = (n) => {
    if (!gens.has(n)) gens.set(n, { batches: [], strings: new Map(), stacks: new Map(), nsPerUnit: 1, sync: null })
    return gens.get(n)
  }
  while (at < bytes.length) {
    const kind = bytes[at++]
    if (kind === E.END) continue
    if (kind !== E.BATCH) throw new Error('The trace has a batch of a kind that this page does not know.')
    const g = gen(int()), m = int(), time = int(), length = int(), from = at, end = at + length
    if (end > bytes.length) break // the last one is not complete
    const first = length > 0 ? bytes[at] : 0
    if (first === E.STACKS) {
      at++
      while (at < end && bytes[at++] === E.STACK) {
        const id = int(), n = int(), frames = []
        for (let i = 0; i < n; i++) int(), frames.push([int(), int(), int()])
        g.stacks.set(id, frames)
      }
    } else if (first === E.STRINGS) {
      at++
      while (at < end && bytes[at++] === E.STRING) {
        const id = int(), n = int()
        g.strings.set(id, text.decode(bytes.subarray(at, at + n)))
        at += n
      }
    } else if (first === E.SYNC) {
      at++
      while (at < end) {
        const e = bytes[at++]
        if (e === E.FREQUENCY) g.nsPerUnit = 1e9 / int()
        else if (e === E.SNAPSHOT) {
          const t = time + int()
          int()
          g.sync = { t, wallMs: int() * 1000 + int() / 1e6 }
        } else break
      }
    } else if (first !== E.SAMPLES && first in ARGS) {
      g.batches.push({ m, time, from, end })
    }
    at = end
  }

  // ---- events ----
  const out = {
    pieces: [],   // { p, g, t0, t1, call, m, gen, why, stack }: p -1: in a call, without a processor
    stops: [], cycles: [], logs: [], waits: [], runnable: [],
    taken: new Map(), // by processor: when it was taken from a thread in a call
    fibers: new Map(), from: Infinity, to: 0, wall: null,
  }
  const queue = { t: [], g: [], ready: [] } // to be sorted by time: fiber g can run, or has begun to
  const threads = new Map()
  const fiber = (id) => {
    if (!out.fibers.has(id)) out.fibers.set(id, { id, name: '', ran: 0, pieces: 0, waited: 0, worst: 0 })
    return out.fibers.get(id)
  }
  let cycle = null, events = 0
  const numbers = [...gens.keys()].sort((a, b) => a - b)
  for (const n of numbers) {
    const g = gens.get(n)
    const string = (id) => g.strings.get(id) || ''
    const stack = (id) => (g.stacks.get(id) || []).map(([f, file, line]) => ({ name: string(f), file: string(file), line }))
    const entry = (id) => {
      const s = g.stacks.get(id)
      return s && s.length ? string(s[s.length - 1][0]) : ''
    }
    const named = (id, stackId) => {
      const f = fiber(id)
      if (!f.name) f.name = entry(stackId)
    }
    if (g.sync && out.wall === null) out.wall = { ns: g.sync.t * g.nsPerUnit, ms: g.sync.wallMs }
    g.batches.sort((a, b) => a.time - b.time)
    for (const batch of g.batches) {
      if (!threads.has(batch.m)) threads.set(batch.m, { p: -1, g: 0, since: 0, call: false, stop: null })
      const me = threads.get(batch.m)
      const piece = (t, why, stackId) => {
        if (me.g !== 0 && t > me.since && me.since > 0)
          out.pieces.push({ p: me.p, g: me.g, t0: me.since, t1: t, call: me.call, m: batch.m, why, stack: stackId ? () => stack(stackId) : null })
        me.since = t
      }
      const ready = (t, id, is) => queue.t.push(t) && queue.g.push(id) && queue.ready.push(is)
      let units = batch.time
      at = batch.from
      while (at < batch.end) {
        const e = bytes[at++]
        if (!(e in ARGS)) throw new Error(`The trace has an event of a kind that this page does not know (${e}).`)
        units += int()
        const t = units * g.nsPerUnit
        const n = ARGS[e]
        const a = n > 0 ? int() : 0, b = n > 1 ? int() : 0, c = n > 2 ? int() : 0, d = n > 3 ? int() : 0
        if (t < out.from) out.from = t
        if (t > out.to) out.to = t
        if ((++events & 0xffff) === 0) {
          const kept = at
          await pause() // the page stays alive meanwhile
          at = kept
        }
        switch (e) {
        case E.PROC_START: piece(t); me.p = a; break
        case E.PROC_STOP: piece(t); me.p = -1; break
        case E.PROC_STEAL: listOf(out.taken, a).push(t); break
        case E.PROC_STATUS: if (b === 1 || b === 3) me.p = a, me.since = me.since || t; break
        case E.GO_START: piece(t); me.g = a; me.call = false; ready(t, a, 0); break
        case E.GO_STOP: piece(t, string(a) || 'yields', b); ready(t, me.g, 1); me.g = 0; break
        case E.GO_BLOCK: piece(t, string(a), b); me.g = 0; break
        case E.GO_DESTROY: piece(t, 'ends'); me.g = 0; break
        case E.GO_DESTROY_SYSCALL: piece(t, 'ends'); me.g = 0; me.call = false; break
        case E.GO_SWITCH: piece(t, 'switches to another'); ready(t, a, 0); me.g = a; break
        case E.GO_SWITCH_DESTROY: piece(t, 'ends'); ready(t, a, 0); me.g = a; break
        case E.GO_CREATE: named(a, b); ready(t, a, 1); break
        case E.GO_CREATE_BLOCKED: named(a, b); break
        case E.GO_CREATE_SYSCALL: me.g = a; me.call = true; me.since = t; break
        case E.GO_UNBLOCK: ready(t, a, 1); break
        case E.SYSCALL_BEGIN: piece(t, 'calls the system', b); me.call = true; break
        case E.SYSCALL_END: piece(t); me.call = false; break
        case E.SYSCALL_END_BLOCKED: me.p = -1; piece(t); me.call = false; ready(t, me.g, 1); me.g = 0; break
        case E.GO_STATUS:
        case E.GO_STATUS_STACK:
          if (e === E.GO_STATUS_STACK) named(a, d)
          else fiber(a)
          if ((c === 2 || c === 3) && (b === batch.m || b >= NO_ID)) {
            if (me.g !== a) me.g = a, me.since = t
            me.call = c === 3
          }
          break
        case E.GO_LABEL: if (me.g) fiber(me.g).name = fiber(me.g).name || string(a); break
        case E.STW_BEGIN: me.stop = { t0: t, t1: t, why: string(a), m: batch.m }; break
        case E.STW_END: if (me.stop) me.stop.t1 = t, out.stops.push(me.stop), (me.stop = null); break
        case E.GC_ACTIVE: if (!cycle) cycle = { t0: t, t1: t, open: true }, out.cycles.push(cycle); break
        case E.GC_BEGIN: cycle = { t0: t, t1: t, open: true }; out.cycles.push(cycle); break
        case E.GC_END: if (cycle) cycle.t1 = t, (cycle.open = false), (cycle = null); break
        case E.USER_LOG: out.logs.push({ t, key: string(b), text: string(c), g: me.g }); break
        }
      }
    }
  }
  for (const [m, me] of threads)
    if (me.g !== 0 && me.since > 0 && out.to > me.since) out.pieces.push({ p: me.p, g: me.g, t0: me.since, t1: out.to, call: me.call, m, why: '', stack: null })
  for (const c of out.cycles) if (c.open) c.t1 = out.to
  lanes(out, fiber)
  waits(out, queue)
  out.events = events
  for (const list of [out.stops, out.logs, out.cycles]) list.sort((a, b) => (a.t0 ?? a.t) - (b.t0 ?? b.t))
  return out
}

// The processor was taken then, in the middle of a call, which goes on without.
function cut(piece, t, off) {
  if (piece.call) off.push({ ...piece, p: -1, t0: t })
  piece.t1 = t
}

// Pieces by processor, each list sorted and without overlaps; those without a processor in as many further lanes as they need.
function lanes(out, fiber) {
  const by = new Map()
  const off = []
  out.pieces.sort((a, b) => a.t0 - b.t0)
  for (const x of out.pieces) {
    if (x.p < 0) {
      off.push(x)
      continue
    }
    const list = listOf(by, x.p)
    const last = list[list.length - 1]
    if (last && last.t1 > x.t0) cut(last, x.t0, off)
    list.push(x)
    const taken = x.call && out.taken.get(x.p)?.find((t) => t > x.t0 && t < x.t1)
    if (taken) cut(x, taken, off)
  }
  off.sort((a, b) => a.t0 - b.t0)
  out.lanes = [...by].sort((a, b) => a[0] - b[0]).map(([p, pieces]) => ({ label: `P${p}`, p, pieces }))
  const extra = []
  for (const x of off) {
    let lane = extra.find((l) => l.pieces[l.pieces.length - 1].t1 <= x.t0)
    if (!lane) extra.push((lane = { label: 'no P', p: -1, pieces: [] }))
    lane.pieces.push(x)
  }
  out.without = extra
  for (const x of out.pieces) {
    const f = fiber(x.g) // a thread of the host's may be on a lane without another word of it
    if (!x.call) f.ran += x.t1 - x.t0
    f.pieces++
  }
}

// How long fibers that could run waited for a processor, and how many did at a time.
function waits(out, queue) {
  const order = Uint32Array.from(queue.t.keys()).sort((a, b) => queue.t[a] - queue.t[b])
  const since = new Map()
  const all = []
  for (const i of order) {
    const id = queue.g[i], t = queue.t[i]
    if (queue.ready[i]) {
      since.set(id, t)
    } else if (since.has(id)) {
      const ns = t - since.get(id)
      since.delete(id)
      all.push(ns)
      const f = out.fibers.get(id)
      if (f) f.waited += ns, (f.worst = Math.max(f.worst, ns))
    } else continue
    const last = out.runnable[out.runnable.length - 1]
    if (last && last[0] === t) last[1] = since.size
    else out.runnable.push([t, since.size])
  }
  out.waits = Float64Array.from(all).sort()
}
