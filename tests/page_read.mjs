// See page_read.sh: page_read.mjs PAGE/src PROFILE TOP TRACE PARSED. What the page's decoders say of a profile and a trace, against what Go's tools say.
import fs from 'fs'
import path from 'path'
import { pathToFileURL } from 'url'
const [source, profileFile, topFile, traceFile, parsedFile] = process.argv.slice(2)
const load = (name) => import(pathToFileURL(path.resolve(source, name)))
const { readProfile, tree, functions } = await load('pprof.js')
const { readTrace } = await load('trace.js')
const bytes = (file) => new Uint8Array(fs.readFileSync(file))
let bad = 0
const check = (name, wrong) => {
  console.log(wrong ? `not ok ${name}: ${wrong}` : `ok ${name}`)
  bad |= wrong ? 1 : 0
}
const sum = (list, of) => list.reduce((n, x) => n + of(x), 0)

// ---- the profile: each function's own time, and with what it calls, as `go tool pprof -top -unit=ns` lists it ----
const profile = await readProfile(bytes(profileFile))
const index = profile.types.findIndex((t) => t.type === 'cpu')
// By name alone, as pprof's table is: of a function that calls a part of itself, which the compiler has put elsewhere, that is one in two files.
const named = { ...profile, samples: profile.samples.map((x) => ({ ...x, frames: x.frames.map((f) => ({ ...f, file: '' })) })) }
const mine = new Map(functions(named, index).map((f) => [f.name, [f.self, f.total]]))
const wrong = []
let rows = 0
for (const line of fs.readFileSync(topFile, 'utf8').split('\n')) {
  const m = /^ *(\d+)(?:ns)? +[\d.]+% +[\d.]+% +(\d+)(?:ns)? +[\d.]+% +(.*?)(?: \(inline\)| \(partial-inline\))?$/.exec(line)
  if (!m) continue
  rows++
  const of = mine.get(m[3])
  if (!of || of[0] !== Number(m[1]) || of[1] !== Number(m[2])) wrong.push(`${m[3]}: ${of} and not ${m[1]},${m[2]}`)
}
check(
  'profile_by_function',
  wrong.slice(0, 3).join('; ') || (rows < 3 ? `only ${rows} functions` : rows !== mine.size ? `${mine.size} functions, and not ${rows}` : ''),
)
const root = tree(profile, index)
const selves = (n) => n.self + sum(n.children, selves)
check(
  'profile_tree_sums',
  selves(root) !== root.total
    ? `${selves(root)} of ${root.total}`
    : sum(profile.samples, (s) => s.values[index]) !== root.total
      ? 'not all of it'
      : '',
)

// ---- one that is a message of several pieces, cut and put together elsewhere ----
const whole = bytes(profileFile)
const cut = await readProfile(whole.subarray(0, whole.length - 5)).then(
  () => 'it was taken for whole',
  (e) => (/cut short/.test(e.message) ? '' : e.message),
)
check('profile_cut_short_is_told', cut)
check(
  'profile_nonsense_is_told',
  await readProfile(new TextEncoder().encode('This is no profile at all, is it?')).then(
    () => 'it was read',
    () => '',
  ),
)

// ---- the trace: of each fiber the time that it ran, from the changes of state that `go tool trace -d=parsed` lists ----
const trace = await readTrace(bytes(traceFile))
const state = new Map(),
  ran = new Map()
let stops = 0,
  collections = 0,
  last = 0,
  began = new Map()
for (const line of fs.readFileSync(parsedFile, 'utf8').split('\n')) {
  const time = / Time=(\d+)/.exec(line)
  if (!time) continue
  last = Number(time[1])
  const change = /StateTransition .* GoID=(\d+) (\w+)->(\w+)/.exec(line)
  if (change) {
    const id = Number(change[1])
    if (state.get(id)?.is === 'Running') ran.set(id, (ran.get(id) || 0) + last - state.get(id).since)
    state.set(id, { is: change[3], since: last })
  }
  const range = /Range(Begin|End) .*Name="([^"]*)"/.exec(line)
  if (range && range[1] === 'Begin' && range[2].startsWith('stop-the-world')) stops++
  if (range && range[1] === 'Begin' && range[2].startsWith('GC concurrent mark')) collections++
}
for (const [id, s] of state) if (s.is === 'Running') ran.set(id, (ran.get(id) || 0) + last - s.since)
const all = sum([...ran.values()], (x) => x)
const off = []
for (const [id, ns] of ran) {
  const of = trace.fibers.get(id)?.ran ?? 0
  // Times are rounded to the clock's unit, and what is between two events of one thread may count for either: a thousandth, or ten microseconds.
  if (Math.abs(of - ns) > Math.max(1e4, ns / 1000)) off.push(`fiber ${id} ran ${of}, and not ${ns} ns`)
}
check('trace_time_by_fiber', off.slice(0, 3).join('; ') || (ran.size < 10 || all < 1e7 ? `${ran.size} fibers ran ${all} ns` : ''))
check('trace_stops', trace.stops.length === stops && stops > 0 ? '' : `${trace.stops.length}, and not ${stops}`)
check('trace_collections', trace.cycles.length === collections && collections > 0 ? '' : `${trace.cycles.length}, and not ${collections}`)
const over = trace.lanes.filter((l) => l.pieces.some((p, i) => p.t1 < p.t0 || (i > 0 && l.pieces[i - 1].t1 > p.t0)))
check('trace_lanes_do_not_overlap', over.length ? `${over[0].label} does` : trace.lanes.length < 2 ? 'there are too few' : '')
check(
  'trace_fibers_have_names',
  [...trace.fibers.values()].some((f) => /serve|conn/.test(f.name))
    ? ''
    : [...new Set([...trace.fibers.values()].map((f) => f.name))].join(),
)
const blocked = trace.pieces.filter((p) => p.stack && p.stack().length > 0)
check('trace_stacks', blocked.length > 0 && blocked.some((p) => p.stack().some((f) => /\.c$/.test(f.file) && f.line > 0)) ? '' : 'none')
check(
  'trace_nonsense_is_told',
  await readTrace(new TextEncoder().encode('This is no trace at all, is it?')).then(
    () => 'it was read',
    () => '',
  ),
)
process.exit(bad)
