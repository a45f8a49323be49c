// What to look at first.
import { bytes, count, duration, many, NONE, num, percent, place, rate } from './format.js'
import { useState } from 'preact/hooks'
import { Chart } from './chart.jsx'
import { Head, Of, Panel, Tile, Place } from './ui.jsx'

export const FIBER_SERIES = [
  { name: 'running', color: 'series-1', of: (d) => d.running },
  { name: 'runnable', color: 'series-2', of: (d) => d.runnable },
  { name: 'waiting', color: 'series-3', of: (d) => d.waiting, fill: true },
  { name: 'in a call', color: 'series-4', of: (d) => d.blocking, dash: [4, 3] },
]

// Live bytes between collections, which make the teeth of the saw: before and after each.
export function heapPoints(state) {
  const first = state.history.length ? state.history[0].t - 1000 : 0
  const at = []
  for (const c of state.cycles) {
    if (c.end_ms < first) continue
    at.push({ t: c.end_ms - 0.5, live: num(c.before_bytes), marked: null, goal: null })
    at.push({ t: c.end_ms, live: num(c.marked_bytes), marked: num(c.marked_bytes), goal: num(c.goal_bytes) })
  }
  for (const s of state.history) at.push({ t: s.heap_t, live: s.live, marked: null, goal: s.goal })
  return at.sort((a, b) => a.t - b.t)
}
export const HEAP_SERIES = [
  { name: 'goal', color: 'series-2', of: (d) => d.goal, dash: [6, 4], steps: true },
  { name: 'found alive', color: 'series-3', of: (d) => d.marked },
  { name: 'live', color: 'series-1', of: (d) => d.live, fill: true },
]

const brief = (at) => [place(at).name, place(at).where].filter(Boolean).join(' at ')
const STATES = { running: 'runs a fiber', scheduling: 'looks for work', idle: 'idle' }

export function Procs({ doc }) {
  return (
    <div class="procs">
      {doc.procs.map((p) => (
        <div class="proc" data-is={p.state} data-proc={p.id} key={p.id}>
          <div class="id" aria-label={`processor ${p.id}`}>
            P{p.id}
          </div>
          <div class="what">{p.fiber ? `fiber ${p.fiber.id}${p.fiber.name ? ` · ${p.fiber.name}` : ''}` : STATES[p.state] || p.state}</div>
          <div class="where" title={p.fiber?.site}>
            {p.fiber?.site ? `made by ${brief(p.fiber.site)}` : p.fiber ? 'of the runtime' : '\u00a0'}
          </div>
          <div class="small soft">
            {count(p.queued)} queued · {count(p.timers)} timers · {count(p.steps)} steps
          </div>
        </div>
      ))}
    </div>
  )
}

export function Overview({ state }) {
  const { info, procs, heap, memory, stops, doctor } = state.docs
  const last = state.history[state.history.length - 1]
  const gc = stops?.reasons.find((r) => r.reason === 'GC')
  const wait = procs?.wait_for_processor
  const quota = info && info.quota_cpus !== null ? `quota ${info.quota_cpus} CPUs` : info ? `of ${count(info.cpus)} CPUs, no quota` : ''
  return (
    <>
      <Head title="Overview">
        What this process does now, asked for every two seconds. Nothing is stopped to answer. Words with a dotted line explain themselves.
      </Head>
      <div class="tiles">
        <Tile
          id="fibers"
          label="Fibers"
          tip="Green threads that exist now, a few of the runtime's own among them. In a leak this number rises without end; the Fibers view says who makes them."
          value={count(procs?.fibers.all)}
          sub={procs && `${count(procs.fibers.running)} run, ${count(procs.fibers.runnable)} could`}
          spark={state.history.map((s) => s.fibers)}
        />
        <Tile
          id="wait"
          label="Wait for a processor"
          tip="How long a fiber that could run waited until it did: of 100 waits, 99 were shorter than this. Since the start of the runtime. Long waits mean too few processors, or fibers that hold them for long."
          value={duration(wait?.p99_ns)}
          unit="p99"
          sub={wait && `half ≤ ${duration(wait.p50_ns)}, all ≤ ${duration(wait.max_ns)}`}
        />
        <Tile
          id="procs"
          label="Processors"
          tip="How many fibers can run at a time. By default as many as the container's quota and the affinity of the process allow, followed as these change."
          value={count(info?.procs)}
          sub={quota}
        />
        <Tile
          id="live"
          label="Live heap"
          tip="Bytes of objects that are alive, or dead and not yet found to be. It grows up to the goal, then a collection removes what is dead."
          value={bytes(heap?.live_bytes)}
          sub={heap && `goal ${heap.goal_bytes === null ? 'none' : bytes(heap.goal_bytes)}`}
          spark={state.history.map((s) => s.live)}
        />
        <Tile
          id="allocating"
          label="Allocation"
          tip="Bytes allocated per second, between the last two answers. What it costs is collections: they come as often as this fills the room between live heap and goal."
          value={last && last.allocating !== null ? `${bytes(last.allocating)}/s` : '–'}
          sub={heap && `${many(heap.cycles, 'collection')} so far`}
          spark={state.history.map((s) => s.allocating)}
        />
        <Tile
          id="rss"
          label="Resident memory"
          tip="What the kernel counts as this process's memory (RSS). The Memory view says what it is made of, and when each part falls."
          value={bytes(memory?.rss_bytes)}
          sub={memory && (memory.limit_bytes === null ? 'no memory limit' : `limit ${bytes(memory.limit_bytes)}`)}
          spark={state.history.map((s) => s.rss)}
        />
        <Tile
          id="pause"
          spark={state.cycles.slice(-60).map((c) => num(c.pause_ns))}
          label="Stops by collections"
          tip="How long all fibers stood still for a collection: of 100 stops, 99 were shorter. Since the start of the runtime."
          value={duration(gc?.stopped.p99_ns)}
          unit="p99"
          sub={gc ? `half ≤ ${duration(gc.stopped.p50_ns)}, all ≤ ${duration(gc.stopped.max_ns)}` : stops && 'no collection yet'}
        />
        <Tile
          id="gc"
          label="Collector's CPU"
          tip="The part of the processors' time since the start that collections took. Above a quarter, the heap's goal is too near to what lives: raise WEFT_GC, or the memory limit."
          value={heap ? percent(heap.cpu_fraction) : '–'}
          sub={doctor && `doctor: ${doctor.findings.length === 0 ? 'no findings' : many(doctor.findings.length, 'finding')}`}
        />
      </div>
      <div class="grid">
        <Panel
          title="Processors and what runs on them"
          id="procs"
          about="A fiber runs while its thread holds one of these. Those that could run wait in a processor's queue, or in the global one."
        >
          <Of doc={procs} refused={state.refused.procs} height={94}>
            {(doc) => (
              <>
                <Procs doc={doc} />
                <p class="small soft" style={{ marginTop: '10px' }}>
                  {count(doc.queue.global)} in the global queue · {count(doc.hand_offs)} times a processor was taken from a fiber that did not come
                  back · {count(doc.threads.all)} threads
                </p>
              </>
            )}
          </Of>
        </Panel>
        <Panel title="Fibers" span={6} id="fibers-chart">
          <Chart label="Fibers by state over time" series={FIBER_SERIES} data={state.history} format={count} />
        </Panel>
        <Panel title="Heap and its goal" span={6} id="heap-chart">
          <Chart label="Live heap and its goal over time" series={HEAP_SERIES} data={heapPoints(state)} format={bytes} />
        </Panel>
        <Panel title="Stops of the world per second" span={6} id="stops-chart">
          <Chart
            label="Stops of the world per second"
            height={170}
            format={rate}
            data={state.history}
            series={[{ name: 'stops', color: 'series-1', of: (d) => d.stopping, fill: true }]}
          />
        </Panel>
        <Panel title="Resident memory" span={6} id="rss-chart">
          <Chart
            label="Resident memory over time"
            height={170}
            format={bytes}
            data={state.history}
            series={[{ name: 'resident', color: 'series-2', of: (d) => d.rss, fill: true }]}
          />
        </Panel>
        <Panel
          title="Threads"
          id="threads"
          about="Each fiber that runs does so on one. Beside them are those that sleep until there is work, and the host's own that called in."
        >
          <Of doc={procs} refused={state.refused.procs}>
            {(doc) => <Threads doc={doc.threads} />}
          </Of>
        </Panel>
        <Panel
          title="Settings"
          id="settings"
          about="What this process was started with, where it is not the default. Each has a variable of the environment, or is a key of WEFT_DEBUG."
        >
          <Of doc={info} refused={state.refused.info}>
            {(doc) => <Settings config={doc.config} />}
          </Of>
        </Panel>
      </div>
    </>
  )
}

function Threads({ doc }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Threads">
      <table class="list">
        <thead>
          <tr>
            <th scope="col">Thread</th>
            <th scope="col">Does</th>
            <th scope="col" class="fill">
              Fiber, and who made it
            </th>
          </tr>
        </thead>
        <tbody>
          {doc.list.map((t) => (
            <tr key={t.id}>
              <td class="nowrap">
                M{t.id} <span class="faint">tid {t.tid}</span>
              </td>
              <td>
                {t.does} {t.locked && <span class="chip warn">locked</span>}{' '}
                {t.hosts && t.does !== "is the host's" && <span class="chip">the host's</span>}
              </td>
              <td>
                {t.fiber ? (
                  <>
                    {t.fiber.id}
                    {t.fiber.name && ` · ${t.fiber.name}`} <Place at={t.fiber.site} none="of the runtime" />
                  </>
                ) : (
                  <span class="faint">none</span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {doc.shown < doc.all && (
        <p class="small soft">
          {count(doc.shown)} of {count(doc.all)} shown.
        </p>
      )}
    </div>
  )
}

function Settings({ config }) {
  const [all, setAll] = useState(false)
  const shown = config.filter((c) => all || c.default === false)
  return (
    <>
      {shown.length === 0 && <p class="soft">All are the defaults.</p>}
      <dl class="settings">
        {shown.map((c) => (
          <div key={c.name}>
            <dt>{c.variable || (c.debug ? `WEFT_DEBUG=${c.name}` : c.name)}</dt>
            <dd>{c.value === '' ? NONE : c.value}</dd>
          </div>
        ))}
      </dl>
      <button type="button" class="button small" aria-pressed={String(all)} onClick={() => setAll(!all)} style={{ marginTop: '10px' }}>
        {all ? 'Only those that were set' : `All ${config.length}`}
      </button>
    </>
  )
}
