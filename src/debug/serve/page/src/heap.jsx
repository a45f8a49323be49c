// The collected heap: how large, how large it may become, and what the collector does about it.
import { bytes, clock, count, duration, many, num, percent } from './format.js'
import { Chart } from './chart.jsx'
import { HEAP_SERIES, heapPoints } from './overview.jsx'
import { Empty, Head, Meter, Of, Panel, Table, Tile } from './ui.jsx'

export function Heap({ state }) {
  const { heap } = state.docs
  const points = heapPoints(state)
  const pauses = state.cycles.map((c) => ({ t: c.end_ms, pause: num(c.pause_ns) }))
  return (
    <>
      <Head title="Heap">
        Objects of the program. A collection begins when they reach the goal: what was found alive last, and as much again as WEFT_GC says.
      </Head>
      <div class="tiles six">
        <Tile
          id="live"
          label="Live"
          tip="Bytes of objects that are alive, or dead and not yet found to be."
          value={bytes(heap?.live_bytes)}
          sub={heap && many(heap.objects, 'object')}
          spark={state.history.map((s) => s.live)}
        />
        <Tile
          id="marked"
          label="Found alive"
          tip="What the last collection found reachable. If this rises from one to the next without end, something is kept that should not be: the Retention view says by whom."
          value={bytes(heap?.marked_bytes)}
          sub={heap && (heap.last_ms_ago === null ? 'no collection yet' : `${duration(heap.last_ms_ago * 1e6)} ago`)}
        />
        <Tile
          id="goal"
          label="Goal"
          tip="At this size the next collection begins. From gc_percent (WEFT_GC), and from the memory limit (WEFT_MEMLIMIT) if that is nearer."
          value={heap?.goal_bytes === null ? 'off' : bytes(heap?.goal_bytes)}
          sub={
            heap &&
            `${heap.percent === null ? 'off' : `${count(heap.percent)} %`}, ${heap.limit_bytes === null ? 'no limit' : `limit ${bytes(heap.limit_bytes)}`}`
          }
        />
        <Tile
          id="cycles"
          label="Collections"
          tip="Since the start. Forced ones were asked for by weft_gc: in a program that serves there should be none."
          value={count(heap?.cycles)}
          sub={heap && `${count(heap.forced)} forced`}
        />
        <Tile
          id="allocated"
          label="Allocated"
          tip="All bytes allocated since the start, rounded up to size classes."
          value={bytes(heap?.allocated_bytes)}
          sub={heap && many(heap.allocated_objects, 'object')}
        />
        <Tile
          id="gc"
          label="Collector's CPU"
          tip="The part of the processors' time since the start that collections took."
          value={heap ? percent(heap.cpu_fraction) : '–'}
          sub={heap && `${many(num(heap.finalizers.queued) - num(heap.finalizers.run), 'finalizer')} due`}
        />
      </div>
      <div class="grid">
        <Panel
          title="Heap and its goal"
          id="heap-chart"
          about="A saw: up while the program allocates, down at each collection to what was found alive. Both ends rising means that more and more is kept."
        >
          <Chart label="Live heap and its goal over time" series={HEAP_SERIES} data={points} format={bytes} height={260} />
        </Panel>
        <Panel title="Pauses" span={6} id="pauses" about="How long all fibers stood still, each dot a collection.">
          {pauses.length === 0 ? (
            <Empty title="No collection yet.">The first one comes when the heap reaches its goal.</Empty>
          ) : (
            <Chart
              label="Pauses of collections over time"
              height={262}
              format={duration}
              data={pauses}
              series={[{ name: 'pause', color: 'series-1', of: (d) => d.pause, points: true }]}
            />
          )}
        </Panel>
        <Panel title="By size" span={6} id="sizes" about="Live objects by size class. One class with most of the bytes often is one type.">
          <Of doc={heap} refused={state.refused.heap}>
            {(doc) => {
              const most = Math.max(1, ...doc.sizes.map((s) => num(s.live)))
              return doc.sizes.length === 0 ? (
                <Empty title="No objects." />
              ) : (
                <Table
                  label="Live objects by size class"
                  limit={8}
                  keyOf={(s) => s.size}
                  rows={doc.sizes}
                  sort={[1, true]}
                  columns={[
                    {
                      name: 'Size',
                      of: (s) => (
                        <>
                          {s.size === 0 ? 'large' : bytes(s.size)}
                          <Meter part={num(s.live) / most} />
                        </>
                      ),
                      by: (s) => s.size || Infinity,
                    },
                    { name: 'Live', n: true, of: (s) => count(s.live), by: (s) => num(s.live) },
                    { name: 'Bytes', n: true, of: (s) => (s.size === 0 ? '–' : bytes(s.size * num(s.live))), by: (s) => s.size * num(s.live) },
                    { name: 'Ever allocated', n: true, of: (s) => count(s.allocated), by: (s) => num(s.allocated) },
                  ]}
                />
              )
            }}
          </Of>
        </Panel>
        <Panel title="Last collections" id="cycles">
          {state.cycles.length === 0 ? (
            <Empty title="No collection yet." />
          ) : (
            <Table
              label="Last collections"
              limit={12}
              rows={[...state.cycles].reverse().slice(0, 256)}
              keyOf={(c) => c.cycle}
              columns={[
                {
                  name: 'Collection',
                  of: (c) => (
                    <>
                      {count(c.cycle)} {c.forced && <span class="chip warn">forced</span>}
                    </>
                  ),
                },
                { name: 'Ended', n: true, of: (c) => clock(c.end_ms, true) },
                { name: 'Pause', n: true, of: (c) => duration(c.pause_ns), by: (c) => num(c.pause_ns) },
                { name: 'Before', n: true, of: (c) => bytes(c.before_bytes) },
                { name: 'Found alive', n: true, of: (c) => bytes(c.marked_bytes) },
                { name: 'Next goal', n: true, of: (c) => bytes(c.goal_bytes) },
              ]}
            />
          )}
        </Panel>
      </div>
    </>
  )
}
