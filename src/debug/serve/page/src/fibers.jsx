// Fibers: in which states, by whom they were made, and which have waited longest.
import { useState } from 'preact/hooks'
import { count, duration, many, num } from './format.js'
import { Chart } from './chart.jsx'
import { FIBER_SERIES } from './overview.jsx'
import { Empty, Head, Meter, Of, Panel, Place, Table, useLive } from './ui.jsx'

export function Fibers({ state }) {
  useLive('fibers')
  const { fibers } = state.docs
  const [find, setFind] = useState('')
  const match = (w) => !find || `${w.id} ${w.name} ${w.state} ${w.site}`.toLowerCase().includes(find.toLowerCase())
  return (
    <>
      <Head title="Fibers">
        {fibers && (
          <>
            {count(fibers.all)} now, {count(fibers.made)} made since the start
            {fibers.leaked > 0 && (
              <>
                , <b>{many(fibers.leaked, 'waits', 'wait')} for what nobody can ever do</b>
              </>
            )}
            .
          </>
        )}
      </Head>
      <div class="grid">
        <Panel
          title="By state"
          span={4}
          id="states"
          about="What they do now. Those that wait for descriptors or channels cost nothing but their memory."
        >
          <Of doc={fibers} refused={state.refused.fibers}>
            {(doc) =>
              doc.states.length === 0 ? (
                <Empty title="No fibers." />
              ) : (
                <table class="list">
                  <thead>
                    <tr>
                      <th scope="col">State</th>
                      <th scope="col" class="n">
                        Fibers
                      </th>
                    </tr>
                  </thead>
                  <tbody>
                    {doc.states.map((s) => (
                      <tr key={s.state} data-state={s.state}>
                        <td>
                          {s.state}
                          <Meter part={s.n / doc.all} />
                        </td>
                        <td class="n">{count(s.n)}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              )
            }
          </Of>
        </Panel>
        <Panel title="By who made them" span={8} id="sites" about="The line that called weft_go. One whose number only grows is where fibers leak.">
          <Of doc={fibers} refused={state.refused.fibers}>
            {(doc) => (
              <Table
                label="Fibers by creation site"
                limit={20}
                keyOf={(s) => s.site}
                rows={doc.sites.list}
                caption={doc.sites.shown < doc.sites.all && `${count(doc.sites.shown)} of ${count(doc.sites.all)} places, the most fibers first`}
                columns={[
                  {
                    name: 'Made by',
                    of: (s) => (
                      <span data-site={s.site}>
                        <Place at={s.site} none="the runtime" />
                        <Meter part={s.n / doc.all} kind="" />
                      </span>
                    ),
                  },
                  { name: 'Fibers', n: true, of: (s) => count(s.n) },
                  {
                    name: 'In these states',
                    of: (s) => (
                      <div class="chips">
                        {s.states.map((x) => (
                          <span class="chip" key={x.state}>
                            {x.state} {count(x.n)}
                          </span>
                        ))}
                      </div>
                    ),
                  },
                ]}
              />
            )}
          </Of>
        </Panel>
        <Panel title="Over time" id="fibers-chart">
          <Chart label="Fibers by state over time" series={FIBER_SERIES} data={state.history} format={count} height={190} />
        </Panel>
        <Panel
          title="Waiting longest"
          id="waits"
          actions={
            <label class="field">
              <span class="unseen">Find a fiber</span>
              <input type="search" placeholder="Find: name, state, place, number" value={find} onInput={(e) => setFind(e.currentTarget.value)} />
            </label>
          }
          about="A fiber that has waited for hours is often one that was forgotten. “leaked”: the collector has proved that nobody can wake it; to look again, take the profile “goroutineleak”."
        >
          <Of doc={fibers} refused={state.refused.fibers}>
            {(doc) => {
              const rows = doc.waits.list.filter(match)
              return rows.length === 0 ? (
                <Empty title={find ? 'No fiber is like that.' : 'No fiber waits.'} />
              ) : (
                <Table
                  label="Fibers that wait"
                  limit={15}
                  keyOf={(w) => w.id}
                  rows={rows}
                  caption={doc.waits.shown < doc.waits.all && `${count(doc.waits.shown)} of ${count(doc.waits.all)} that wait, the longest first`}
                  columns={[
                    { name: 'Fiber', of: (w) => w.id, by: (w) => num(w.id) },
                    {
                      name: 'Name',
                      of: (w) => (
                        <>
                          {w.name || <span class="faint">–</span>} {w.leaked && <span class="chip bad">leaked</span>}
                        </>
                      ),
                      by: (w) => w.name,
                    },
                    { name: 'Waits for', of: (w) => w.state, by: (w) => w.state },
                    { name: 'Since', n: true, of: (w) => duration(w.wait_ns), by: (w) => num(w.wait_ns) ?? -1 },
                    { name: 'Made by', of: (w) => <Place at={w.site} none="the runtime" />, by: (w) => w.site },
                  ]}
                />
              )
            }}
          </Of>
        </Panel>
      </div>
    </>
  )
}
