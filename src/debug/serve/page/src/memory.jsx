// Resident memory: what it is made of, and when each part falls.
import { bytes, duration, NONE, num, percent } from './format.js'
import { Chart } from './chart.jsx'
import { Head, Meter, Of, Panel, Table, Tile } from './ui.jsx'

const GROUPS = { heap: 'collected heap', stacks: "fibers' stacks", runtime: 'the runtime itself', code: 'code and files', host: "the host's own" }

export function Memory({ state }) {
  const { memory } = state.docs
  const free = memory?.parts.find((p) => p.id === 'heap.free')
  return (
    <>
      <Head title="Memory">
        What the kernel counts as this process's memory, by part, and what must happen for each to fall. A collection alone does not lower it: what it
        frees is given back in the background, down to what is kept for the next growth.
      </Head>
      <div class="tiles six">
        <Tile
          id="rss"
          label="Resident"
          tip="RSS: pages of this process that are in memory, as the kernel counts them."
          value={bytes(memory?.rss_bytes)}
          sub={memory && `${bytes(memory.swap_bytes)} swapped out`}
          spark={state.history.map((s) => s.rss)}
        />
        <Tile
          id="free"
          label="Free in the heap"
          tip="Resident pages that no object uses. What is above the part that is kept will be given back."
          value={bytes(free?.resident_bytes)}
          sub={memory && `${bytes(memory.scavenger.retained_bytes)} held by the heap`}
        />
        <Tile
          id="keep"
          label="Kept"
          tip="The heap may hold this much without giving it back: the last goal and ten percent, so that growing again costs no page faults."
          value={memory ? (memory.scavenger.keep_bytes === null ? 'no goal yet' : bytes(memory.scavenger.keep_bytes)) : NONE}
          sub={memory && (memory.scavenger.keep_bytes === null ? 'set by the first collection' : `scavenger: ${memory.scavenger.state}`)}
        />
        <Tile
          id="excess"
          label="On its way back"
          tip="What the heap holds above that. The scavenger gives it back in the background, at a pace that costs one percent of a processor."
          value={bytes(memory?.scavenger.excess_bytes)}
          sub={memory && (memory.scavenger.bytes_per_s ? `${bytes(memory.scavenger.bytes_per_s)}/s` : `scavenger: ${memory.scavenger.state}`)}
        />
        <Tile
          id="returned"
          label="Given back"
          tip="Bytes given back to the system since the start: in the background, and at once (because of the limit, or by weft_free_os_memory)."
          value={memory ? bytes(num(memory.scavenger.returned_background_bytes) + num(memory.scavenger.returned_eager_bytes)) : NONE}
          sub={memory && `${duration(memory.scavenger.worked_ns)} of work`}
        />
        <Tile
          id="limit"
          label="Memory limit"
          tip="WEFT_MEMLIMIT: near it the collector runs more often, and what is free is given back at once. It is soft: what lives is never refused."
          value={memory ? (memory.limit_bytes === null ? 'none' : bytes(memory.limit_bytes)) : NONE}
          sub={
            memory &&
            (memory.limit_bytes === null ? 'WEFT_MEMLIMIT is not set' : `${percent(num(memory.rss_bytes) / num(memory.limit_bytes))} of it resident`)
          }
        />
      </div>
      <div class="grid">
        <Panel title="By part" id="parts" about="The parts sum to the resident memory, but for what changed while it was measured.">
          <Of doc={memory} refused={state.refused.memory} height={300}>
            {(doc) => {
              const sum = num(doc.sum_bytes) || 1
              const groups = Object.keys(GROUPS).filter((g) => doc.parts.some((p) => p.group === g && num(p.resident_bytes) > 0))
              const of = (g) => doc.parts.filter((p) => p.group === g).reduce((n, p) => n + num(p.resident_bytes), 0)
              return (
                <>
                  <div class="stack" role="img" aria-label={groups.map((g) => `${GROUPS[g]} ${bytes(of(g))}`).join(', ')}>
                    {groups.map((g) => (
                      <i key={g} class={`g-${g}`} style={{ width: `${(of(g) / sum) * 100}%` }} />
                    ))}
                  </div>
                  <div class="key" style={{ margin: '10px 0 14px' }}>
                    {groups.map((g) => (
                      <span key={g}>
                        <i class={`g-${g}`} />
                        {GROUPS[g]} <b>{bytes(of(g))}</b>
                      </span>
                    ))}
                  </div>
                  <Table
                    label="Memory by part"
                    limit={40}
                    keyOf={(p) => p.id}
                    sort={[1, true]}
                    rows={doc.parts}
                    columns={[
                      {
                        name: 'Part',
                        of: (p) => (
                          <span data-part={p.id}>
                            <i class={`swatch g-${p.group}`} aria-hidden="true" />
                            {p.name}
                          </span>
                        ),
                        by: (p) => p.name,
                      },
                      {
                        name: 'Resident',
                        n: true,
                        of: (p) => (
                          <span data-bytes={p.resident_bytes}>
                            {bytes(p.resident_bytes)}
                            <Meter part={num(p.resident_bytes) / sum} kind={`g-${p.group}`} />
                          </span>
                        ),
                        by: (p) => num(p.resident_bytes),
                      },
                      {
                        name: 'Held',
                        n: true,
                        tip: 'What the runtime’s own books say it holds. More than is resident: it was given back, or was never touched.',
                        of: (p) => bytes(p.held_bytes),
                        by: (p) => num(p.held_bytes) ?? -1,
                      },
                      { name: 'When it falls', fill: true, of: (p) => <span class="soft">{p.falls || '–'}</span> },
                    ]}
                  />
                </>
              )
            }}
          </Of>
        </Panel>
        <Panel title="Over time" id="rss-chart">
          <Chart
            label="Resident memory and live heap over time"
            format={bytes}
            data={state.history}
            series={[
              { name: 'resident', color: 'series-2', of: (d) => d.rss, fill: true },
              { name: 'live heap', color: 'series-1', of: (d) => d.live },
            ]}
          />
        </Panel>
      </div>
    </>
  )
}
