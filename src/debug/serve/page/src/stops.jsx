// Stops of the world, by reason.
import { count, duration, num } from './format.js'
import { Head, Of, Panel, Empty, Hint, useWidth } from './ui.jsx'

// Counts by length, each bar a bucket; lengths on a logarithmic axis.
function Histogram({ rows, label }) {
  const [room, width] = useWidth()
  return (
    <div ref={room} style={{ minHeight: '102px' }}>
      {width > 0 && <Bars rows={rows} label={label} width={width} />}
    </div>
  )
}

function Bars({ rows, label, width }) {
  const all = rows.filter((b) => b.stopped > 0 || b.stopping > 0)
  if (all.length === 0) return null
  const low = Math.floor(Math.log10(Math.max(1, all[0].from_ns))),
    last = all[all.length - 1]
  const high = Math.max(low + 1, Math.ceil(Math.log10(last.to_ns ?? last.from_ns * 2)))
  const x = (ns) => ((Math.log10(Math.max(1, ns)) - low) / (high - low)) * width
  const most = Math.max(...all.map((b) => Math.max(num(b.stopped), num(b.stopping))))
  const h = (n) => (n > 0 ? Math.max(2, (num(n) / most) * 64) : 0)
  const bars = (key, cls) =>
    all
      .filter((b) => num(b[key]) > 0)
      .map((b) => {
        const left = x(b.from_ns),
          right = x(b.to_ns ?? b.from_ns * 2)
        const w = Math.max(2, right - left - 1) / 2
        return (
          <rect class={cls} x={left + (cls ? w : 0)} y={68 - h(b[key])} width={w} height={h(b[key])}>
            <title>
              {duration(b.from_ns)} to {b.to_ns === null ? 'more' : duration(b.to_ns)}: {count(b[key])}
            </title>
          </rect>
        )
      })
  return (
    <svg class="histogram" viewBox={`0 0 ${width} 92`} role="img" aria-label={label}>
      <line x1="0" x2={width} y1="68.5" y2="68.5" />
      {bars('stopping', 'b')}
      {bars('stopped', '')}
      {Array.from({ length: high - low + 1 }, (_, i) => (
        <text x={Math.min(width - 2, Math.max(2, x(10 ** (low + i))))} y="86" text-anchor={i === 0 ? 'start' : i === high - low ? 'end' : 'middle'}>
          {duration(10 ** (low + i))}
        </text>
      ))}
    </svg>
  )
}

// In words, of the reasons that weft has.
const REASONS = {
  GC: 'collection',
  'read mem stats': 'weft_read_mem_stats',
  GOMAXPROCS: 'number of processors changed',
  'all stacks': 'dump of all stacks',
  'start trace': 'start of a trace',
  end: 'end of the runtime',
}
const named = (reason) => REASONS[reason] || reason

export function Stops({ state }) {
  const { stops } = state.docs
  return (
    <>
      <Head title="Stops of the world">
        While the world is stopped no fiber runs. Each stop has a reason; how long it took until all stood still, and until all ran again, is counted
        by it.
      </Head>
      <Of doc={stops} refused={state.refused.stops}>
        {(doc) =>
          doc.reasons.length === 0 ? (
            <Panel title="By reason" id="stops">
              <Empty title="The world has not been stopped yet.">
                The first collection will, and whoever reads all memory statistics or starts a trace.
              </Empty>
            </Panel>
          ) : (
            <div class="grid">
              <Panel title="By reason" id="stops">
                <div class="scroll" tabIndex={0} role="region" aria-label="Stops by reason">
                  <table class="list">
                    <thead>
                      <tr>
                        <th scope="col" rowSpan={2}>
                          Reason
                        </th>
                        <th scope="col" rowSpan={2} class="n">
                          Stops
                        </th>
                        <th scope="colgroup" colSpan={3} class="n">
                          <Hint tip="From the decision to stop until the last fiber stood still. Long ones come from threads that the kernel does not let run, or that block the signal.">
                            Until all stood still
                          </Hint>
                        </th>
                        <th scope="colgroup" colSpan={3} class="n">
                          <Hint tip="From the decision to stop until all could run again: what a request waits at most.">Until all ran again</Hint>
                        </th>
                        <th scope="col" rowSpan={2} class="n">
                          All together
                        </th>
                      </tr>
                      <tr>
                        {[0, 1].flatMap((i) =>
                          ['p50', 'p99', 'longest'].map((t) => (
                            <th scope="col" class="n" key={`${i}${t}`}>
                              {t}
                            </th>
                          )),
                        )}
                      </tr>
                    </thead>
                    <tbody>
                      {doc.reasons.map((r) => (
                        <tr key={r.reason} data-reason={r.reason}>
                          <td>{named(r.reason)}</td>
                          <td class="n" data-count={r.count}>
                            {count(r.count)}
                          </td>
                          <td class="n">{duration(r.stopping.p50_ns)}</td>
                          <td class="n">{duration(r.stopping.p99_ns)}</td>
                          <td class="n">{duration(r.stopping.max_ns)}</td>
                          <td class="n">{duration(r.stopped.p50_ns)}</td>
                          <td class="n">{duration(r.stopped.p99_ns)}</td>
                          <td class="n">{duration(r.stopped.max_ns)}</td>
                          <td class="n">{duration(r.stopped.total_ns)}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </div>
              </Panel>
              {doc.reasons.map((r) => (
                <Panel key={r.reason} title={named(r.reason).replace(/^[a-z](?!eft_)/, (c) => c.toUpperCase())} span={6} id={`stop-${r.reason}`}>
                  <Histogram
                    rows={r.histogram}
                    label={`How often stops for ${named(r.reason)} took how long: median ${duration(r.stopped.p50_ns)}, longest ${duration(r.stopped.max_ns)}`}
                  />
                  <div class="key">
                    <span>
                      <i style={{ background: 'var(--series-2)' }} />
                      until all stood still
                    </span>
                    <span>
                      <i style={{ background: 'var(--series-1)' }} />
                      until all ran again
                    </span>
                  </div>
                </Panel>
              ))}
            </div>
          )
        }
      </Of>
    </>
  )
}
