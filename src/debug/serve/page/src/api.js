// What the process tells, and how it is asked.
//
// Every `period` a round asks for the documents that somebody on the page wants, all at once; the next one begins when this one is over. No round is
// made while the page is hidden, or paused. A round that fails leaves what was known before, and the page says how old it is.
import { num } from './format.js'

// Not location.href: an address with a password in it cannot be fetched.
const base = new URL('.', location.origin + location.pathname)
const PERIOD = 2000
const PATIENCE = 6000
const KEPT = 300 // rounds of history: ten minutes
const CYCLES_KEPT = 1500

export class Refusal extends Error {
  constructor(status, text) {
    super(text)
    this.status = status
  }
}

export function address(path) {
  return new URL(path, base).href
}

// The answer, or Refusal with what the server says about it; or what fetch throws when there is no answer.
export async function ask(path, { signal, accept } = {}) {
  const answer = await fetch(address(path), { signal, cache: 'no-store', headers: accept ? { Accept: accept } : {} })
  if (!answer.ok) {
    const text = (await answer.text()).trim()
    throw new Refusal(answer.status, text.length > 0 && text.length < 600 ? text : `The server answered ${answer.status}.`)
  }
  return answer
}

const state = {
  docs: {},       // by name, as last answered
  refused: {},    // by name: Refusal, if the last answer was one
  history: [],    // a sample a round
  cycles: [],     // the collections known of, oldest first
  answered: 0,    // when the last round succeeded, by the clock of this machine
  failing: 0,     // when the first of the rounds began that have failed since
  status: 'starting', // starting, live, silent, denied, paused, hidden
  restarts: 0,
}
const listeners = new Set()
const wanted = new Map() // name -> how many want it
let paused = false
let timer = 0
let round = null

const tell = () => listeners.forEach((fn) => fn())

export const live = {
  get state() { return state },
  subscribe(fn) {
    listeners.add(fn)
    return () => listeners.delete(fn)
  },
  // Until the function returned is called.
  want(names) {
    const fresh = names.filter((n) => !wanted.get(n))
    names.forEach((n) => wanted.set(n, (wanted.get(n) || 0) + 1))
    if (fresh.some((n) => !state.docs[n])) schedule(0)
    return () => names.forEach((n) => wanted.set(n, wanted.get(n) - 1))
  },
  get paused() { return paused },
  pause(on) {
    paused = on
    if (!on) schedule(0)
    settle()
  },
}

function settle() {
  if (state.status !== 'denied')
    state.status = paused ? 'paused' : document.hidden ? 'hidden' : state.failing ? 'silent' : state.answered ? 'live' : 'starting'
  tell()
}

function schedule(ms) {
  clearTimeout(timer)
  timer = setTimeout(run, ms)
}

async function run() {
  if (paused || document.hidden || round) return
  const began = Date.now()
  const abort = new AbortController()
  const late = setTimeout(() => abort.abort(), PATIENCE)
  round = abort
  const names = [...wanted].filter(([, n]) => n > 0).map(([name]) => name)
  const answers = await Promise.allSettled(
    names.map(async (name) => (await ask(`api/${name}`, { signal: abort.signal, accept: 'application/json' })).json()),
  )
  const docs = {}
  let denied = false
  answers.forEach((answer, i) => {
    if (answer.status === 'fulfilled') {
      docs[names[i]] = answer.value
      delete state.refused[names[i]]
    } else if (answer.reason instanceof Refusal) {
      state.refused[names[i]] = answer.reason
      denied = denied || answer.reason.status === 401
    }
  })
  take(docs)
  if (Object.keys(docs).length > 0) state.answered = Date.now() // who answers one question is there, however long the others take
  if (denied) state.status = 'denied'
  else if (Object.keys(docs).length > 0 || answers.some((a) => a.reason instanceof Refusal)) {
    state.failing = 0
    if (state.status === 'denied') state.status = 'live'
  } else if (!paused && !document.hidden && !state.failing && names.length > 0) state.failing = began
  clearTimeout(late)
  round = null
  settle()
  schedule(Math.max(100, PERIOD - (Date.now() - began)))
}

function take(docs) {
  const before = state.docs.info
  if (before && docs.info && (docs.info.pid !== before.pid || docs.info.up_ms < before.up_ms)) { // another process has taken its place
    state.history = []
    state.cycles = []
    state.restarts++
  }
  state.docs = { ...state.docs, ...docs }
  const { procs, heap, stops } = docs
  const memory = state.docs.memory
  if (!procs || !heap) return // no moment to add to what was
  const last = state.history[state.history.length - 1]
  const sample = {
    t: procs.at_ms,
    fibers: procs.fibers.all, running: procs.fibers.running, runnable: procs.fibers.runnable, waiting: procs.fibers.waiting,
    blocking: procs.fibers.blocking,
    live: num(heap.live_bytes), goal: num(heap.goal_bytes), allocated: num(heap.allocated_bytes), cycles: heap.cycles, heap_t: heap.at_ms,
    rss: memory ? num(memory.rss_bytes) : null,
    stops: stops ? stops.reasons.reduce((sum, r) => sum + num(r.count), 0) : null, stops_t: stops ? stops.at_ms : null,
    allocating: null, stopping: null,
  }
  if (last && sample.heap_t > last.heap_t) {
    sample.allocating = (sample.allocated - last.allocated) * 1000 / (sample.heap_t - last.heap_t)
  } else if (last) {
    sample.allocating = last.allocating
  }
  if (last && sample.stops !== null && last.stops !== null)
    sample.stopping = sample.stops_t > last.stops_t ? (sample.stops - last.stops) * 1000 / (sample.stops_t - last.stops_t) : last.stopping
  state.history = [...state.history.slice(-KEPT), sample]
  const known = state.cycles.length ? state.cycles[state.cycles.length - 1].cycle : -1
  const fresh = heap.history.filter((c) => c.cycle > known)
  if (fresh.length) state.cycles = [...state.cycles, ...fresh].slice(-CYCLES_KEPT)
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) round?.abort()
  else schedule(0)
  settle()
})
setInterval(() => state.status === 'silent' && tell(), 1000) // how long it has been silent
