// Profiles in pprof's format: gzip members, whose contents together are one protobuf message.

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

// A CPU profile is a member per flush, and the browser refuses what comes behind the first. Where a member ends is known only to who has inflated it,
// so: cut before each thing that looks like a head, and where the browser does not take a piece for a whole member, it was none, and the
// next piece belongs to it.
async function members(bytes) {
  const cuts = []
  for (let i = 0; i + 18 <= bytes.length; i++)
    if (bytes[i] === 0x1f && bytes[i + 1] === 0x8b && bytes[i + 2] === 8 && (bytes[i + 3] & 0xe0) === 0) cuts.push(i)
  if (cuts[0] !== 0) return bytes // not compressed
  cuts.push(bytes.length)
  const parts = []
  for (let from = 0, to = 1; from < cuts.length - 1; from = to, to++) {
    for (;; to++) {
      if (to === cuts.length) throw new Error('The profile is cut short.')
      try {
        parts.push(await inflate(bytes.subarray(cuts[from], cuts[to])))
        break
      } catch {
        continue
      }
    }
  }
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const p of parts) all.set(p, at), at += p.length
  return all
}

// ---- protobuf ----

class Reader {
  constructor(bytes, at = 0, end = bytes.length) {
    this.bytes = bytes
    this.at = at
    this.end = end
  }

  // A varint as a signed 64-bit number, as near as a double gets.
  int() {
    let low = 0, high = 0, shift = 0
    for (;;) {
      if (this.at >= this.end || shift > 63) throw new Error('The profile is cut short.')
      const b = this.bytes[this.at++]
      if (shift < 28) low |= (b & 0x7f) << shift
      else if (shift === 28) low |= (b & 0xf) << 28, high |= (b & 0x7f) >> 4
      else high |= (b & 0x7f) << (shift - 32)
      if (b < 0x80) return high * 4294967296 + (low >>> 0)
      shift += 7
    }
  }

  // Calls fields[number](reader, wire type) for each field; what is not in there is skipped.
  message(fields) {
    while (this.at < this.end) {
      const tag = this.int()
      const wire = tag & 7
      const fn = fields[tag >>> 3]
      if (wire === 2) {
        const n = this.int()
        const end = this.at + n
        if (n < 0 || end > this.end) throw new Error('The profile is cut short.')
        if (fn) fn(new Reader(this.bytes, this.at, end), 2)
        this.at = end
      } else if (wire === 0) {
        const v = this.int()
        if (fn) fn(v, 0)
      } else if (wire === 1 || wire === 5) {
        this.at += wire === 1 ? 8 : 4
      } else {
        throw new Error('This is not a profile.')
      }
    }
  }
}

const ints = (into) => (v, wire) => {
  if (wire === 0) into.push(v)
  else while (v.at < v.end) into.push(v.int())
}

// Where no function is known, the file tells more than an address does: "[libz.so.1]".
const bracketed = (file) => `[${file.replace(/^.*\//, '').replace(/^\[|\]$/g, '')}]`

function decode(bytes) {
  const strings = [], types = [], samples = []
  const locations = new Map(), functions = new Map(), mappings = new Map()
  const text = new TextDecoder()
  let duration = 0
  new Reader(bytes).message({
    1: (r) => {
      const t = { type: 0, unit: 0 }
      r.message({ 1: (v) => (t.type = v), 2: (v) => (t.unit = v) })
      types.push(t)
    },
    2: (r) => {
      const s = { at: [], values: [], labels: [] }
      r.message({
        1: ints(s.at),
        2: ints(s.values),
        3: (l) => {
          const label = { key: 0, text: 0, num: null }
          l.message({ 1: (v) => (label.key = v), 2: (v) => (label.text = v), 3: (v) => (label.num = v) })
          s.labels.push(label)
        },
      })
      samples.push(s)
    },
    3: (r) => {
      const m = { id: 0, file: 0 }
      r.message({ 1: (v) => (m.id = v), 5: (v) => (m.file = v) })
      mappings.set(m.id, m)
    },
    4: (r) => {
      const l = { id: 0, mapping: 0, address: 0, lines: [] }
      r.message({
        1: (v) => (l.id = v), 2: (v) => (l.mapping = v), 3: (v) => (l.address = v),
        4: (line) => {
          const x = { fn: 0, line: 0 }
          line.message({ 1: (v) => (x.fn = v), 2: (v) => (x.line = v) })
          l.lines.push(x)
        },
      })
      locations.set(l.id, l)
    },
    5: (r) => {
      const f = { id: 0, name: 0, file: 0 }
      r.message({ 1: (v) => (f.id = v), 2: (v) => (f.name = v), 4: (v) => (f.file = v) })
      functions.set(f.id, f)
    },
    6: (r) => strings.push(text.decode(r.bytes.subarray(r.at, r.end))),
    10: (v) => (duration = v),
  })
  const s = (i) => strings[i] || ''
  return {
    types: types.map((t) => ({ type: s(t.type), unit: s(t.unit) })),
    durationNs: duration,
    samples: samples.map((x) => ({
      values: x.values,
      labels: x.labels.map((l) => ({ key: s(l.key), value: l.num === null ? s(l.text) : String(l.num) })),
      // innermost first, inlined ones in front of what they are inlined into
      frames: x.at.flatMap((id) => {
        const l = locations.get(id)
        if (!l) return []
        const file = mappings.has(l.mapping) ? s(mappings.get(l.mapping).file) : ''
        if (l.lines.length === 0) return [{ name: file ? bracketed(file) : `0x${l.address.toString(16)}`, file: '', line: 0, object: file }]
        return l.lines.map((x) => {
          const f = functions.get(x.fn) || { name: 0, file: 0 }
          return { name: s(f.name) || `0x${l.address.toString(16)}`, file: s(f.file), line: x.line, object: file }
        })
      }),
    })),
  }
}

export async function readProfile(bytes) {
  return decode(await members(bytes))
}

// ---- from samples to a tree ----

// Whose a function is: the runtime's, the C library's or the kernel's, or the program's. For colours only.
export function owner(frame) {
  if (/^(weft_|runtime\.)/.test(frame.name) || /(^|\/)libweft/.test(frame.object)) return 'runtime'
  if (/(^|\/)src\/(base|os|gc|sched|prof|trace|debug)(\/arch|\/serve)?\/[\w-]+\.[chS]$/.test(frame.file)) return 'runtime' // linked in
  if (/(^|\/)(libc|libpthread|libm|ld-linux|libstdc|libgcc|linux-vdso|\[)/.test(frame.object) || /^(\[|0x)/.test(frame.name)) return 'library'
  return 'program'
}

// A node: a function called by the one above it. total: with all it calls. root.total: everything.
export function tree(profile, index, { label } = {}) {
  const make = (name, frame, parent) => ({
    name, file: frame ? frame.file : '', line: frame ? frame.line : 0, owner: frame ? owner(frame) : 'root',
    self: 0, total: 0, depth: parent ? parent.depth + 1 : 0, parent, calls: new Map(), children: [],
  })
  const root = make('all', null, null)
  for (const sample of profile.samples) {
    const v = sample.values[index] || 0
    if (v === 0) continue
    const path = sample.frames.slice().reverse()
    if (label) {
      const l = sample.labels.find((x) => x.key === label)
      path.unshift({ name: l ? `${label}: ${l.value}` : `${label}: none`, file: '', line: 0, object: '', label: true })
    }
    let node = root
    root.total += v
    for (const f of path) {
      const key = `${f.name}\n${f.file}`
      let next = node.calls.get(key)
      if (!next) node.calls.set(key, (next = make(f.name, f, node)))
      if (f.label) next.owner = 'label'
      next.total += v
      node = next
    }
    node.self += v
  }
  const finish = (node) => {
    node.children = [...node.calls.values()].sort((a, b) => b.total - a.total)
    node.calls = null
    node.children.forEach(finish)
  }
  finish(root)
  return root
}

// By function: its own, and with what it calls, recursion counted once.
export function functions(profile, index) {
  const all = new Map()
  for (const sample of profile.samples) {
    const v = sample.values[index] || 0
    if (v === 0) continue
    const seen = new Set()
    sample.frames.forEach((f, i) => {
      const key = `${f.name}\n${f.file}`
      if (!all.has(key)) all.set(key, { name: f.name, file: f.file, self: 0, total: 0 })
      const x = all.get(key)
      if (i === 0) x.self += v
      if (!seen.has(key)) x.total += v
      seen.add(key)
    })
  }
  return [...all.values()]
}
