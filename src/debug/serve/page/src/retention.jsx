// The retention explorer: what the heap is made of, what keeps most of it, and why an object is alive.
import { useMemo, useState } from 'preact/hooks'
import { ask } from './api.js'
import { bytes, clock, count, duration, many, num, percent } from './format.js'
import { save, Taking, Trouble, useTaken } from './profiles.jsx'
import { Empty, Head, Meter, Panel, Place, Table, Tile, useLive } from './ui.jsx'

const ROOTS = {
  handle: 'weft_handle_new',
  'root range': 'weft_root_add',
  data: 'global and static variables',
  stack: "fibers' and threads' stacks",
  registers: 'what runs',
}

function Where({ stack }) {
  if (!stack || stack.length === 0) return <span class="faint">not known</span>
  return (
    <>
      <Place at={stack[0]} />
      {stack.length > 1 && (
        <details>
          <summary>{many(stack.length - 1, 'caller')}</summary>
          <pre>{stack.slice(1).join('\n')}</pre>
        </details>
      )}
    </>
  )
}

// What is kept, as a tree: each under the nearest one in the list that dominates it.
function Kept({ list, all, why }) {
  const [open, setOpen] = useState(() => new Set())
  const inside = useMemo(() => {
    const by = new Map()
    const known = new Set(list.map((x) => x.address))
    for (const x of list) {
      const at = known.has(x.inside) ? x.inside : ''
      by.set(at, [...(by.get(at) || []), x])
    }
    for (const xs of by.values()) xs.sort((a, b) => num(b.retained_bytes) - num(a.retained_bytes))
    return by
  }, [list])
  const rows = []
  const walk = (at, depth) =>
    (inside.get(at) || []).forEach((x) => {
      rows.push({ ...x, depth, more: (inside.get(x.address) || []).length })
      if (open.has(x.address)) walk(x.address, depth + 1)
    })
  walk('', 0)
  const flip = (x) =>
    setOpen((was) => {
      const now = new Set(was)
      if (!now.delete(x.address)) now.add(x.address)
      return now
    })
  return (
    <Table
      label="Objects by what they keep"
      limit={12}
      rows={rows}
      keyOf={(x) => x.address}
      columns={[
        {
          name: 'Object',
          of: (x) => (
            <div style={{ paddingLeft: `${x.depth * 18}px` }} data-kept={x.address}>
              {x.more > 0 && (
                <button
                  type="button"
                  class="twist"
                  aria-expanded={String(open.has(x.address))}
                  aria-label={`${open.has(x.address) ? 'Hide' : 'Show'} what is kept inside`}
                  onClick={() => flip(x)}
                >
                  {open.has(x.address) ? '▾' : '▸'}
                </button>
              )}
              <span class="fn">{x.type || x.kind}</span>{' '}
              <button type="button" class="sort where" onClick={() => why(x.address)}>
                {x.address}
              </button>
            </div>
          ),
        },
        {
          name: 'Keeps',
          n: true,
          tip: 'What would go if this object went: it, and all that is reached through it alone.',
          of: (x) => (
            <>
              {bytes(x.retained_bytes)}
              <Meter part={num(x.retained_bytes) / all} />
            </>
          ),
        },
        { name: 'Objects', n: true, of: (x) => count(x.retained_objects) },
        { name: 'Itself', n: true, of: (x) => bytes(x.bytes) },
        { name: 'Allocated at', of: (x) => <Place at={x.site} none="not sampled" /> },
        {
          name: '',
          of: (x) => (
            <button type="button" class="button small" aria-label={`Why is ${x.address} alive?`} onClick={() => why(x.address)}>
              Why alive?
            </button>
          ),
        },
      ]}
    />
  )
}

export function Retention() {
  const { docs } = useLive('info')
  const [dump, setDump] = useState(null)
  const [address, setAddress] = useState('')
  const taken = useTaken()
  const asked = useTaken()
  const [why, setWhy] = useState(null)
  const text = new TextDecoder()
  const parse = (data) => {
    try {
      return JSON.parse(text.decode(data))
    } catch {
      throw new Error('The answer is not what this page expects: the library in the process may be another version.')
    }
  }
  const take = () => taken.start('heap?dump=1', 0, async (data) => setDump({ doc: parse(data), data }))
  const explain = (at) => {
    setAddress(at)
    setWhy(null)
    asked.start(`heap?why=${encodeURIComponent(at)}&format=json`, 0, async (data) => setWhy({ at, doc: parse(data) }))
    document.querySelector('[data-panel=why]')?.scrollIntoView({ block: 'nearest' })
  }
  const submit = (e) => {
    e.preventDefault()
    if (address.trim()) explain(address.trim())
  }
  const doc = dump?.doc
  const way = (
    <Panel
      title="Why is it alive?"
      id="why"
      about="The address of an object, or of something inside it: from the list above, from a log, or from a debugger."
    >
      <form class="flame-bar" onSubmit={submit}>
        <label class="field" style={{ flex: '0 1 260px' }}>
          <span class="unseen">Address</span>
          <input
            type="text"
            placeholder="0x7f…"
            value={address}
            onInput={(e) => setAddress(e.currentTarget.value)}
            spellcheck={false}
            autocomplete="off"
            style={{ width: '100%' }}
            class="mono"
          />
        </label>
        <button type="submit" class="button" disabled={!!asked.job || !address.trim()}>
          Find the way
        </button>
      </form>
      <Trouble error={asked.error} />
      <Taking taken={asked} what="Looking for a way from a root…" />
      {why && !asked.job && <Way doc={why.doc} />}
    </Panel>
  )
  const total = doc ? num(doc.heap.bytes) || 1 : 1
  return (
    <>
      <Head title="Retention">
        Why memory is kept: what the heap is made of, which objects keep most of it, and the way from a root to any of them.
      </Head>
      <div class="grid">
        <Panel title="Look at the heap" id="take-dump">
          <div class="flame-bar" style={{ marginBottom: 0 }}>
            <button type="button" class="button main-action" disabled={!!taken.job} data-dump onClick={take}>
              {doc ? 'Look again' : 'Look at the heap'}
            </button>
            {dump && (
              <button type="button" class="button" onClick={() => save(`${docs.info?.program || 'weft'}-heap.json`, dump.data)}>
                Save
              </button>
            )}
            <span class="soft small">
              Runs a collection whose stop takes about twice as long as usual; then needs some 70 bytes of memory per object for a moment.
            </span>
          </div>
        </Panel>
        {(taken.job || taken.error) && (
          <Panel title="The heap" id="dump-wait">
            <Trouble error={taken.error} />
            <Taking taken={taken} what="Looking at every object…" />
          </Panel>
        )}
        {!doc && !taken.job && !taken.error && (
          <Panel title="The heap" id="dump-wait">
            <Empty title="Not looked at yet.">
              Press the button: objects by type and by who allocated them, and what keeps them, are shown here.
            </Empty>
          </Panel>
        )}
        {doc && (
          <>
            <div style={{ gridColumn: 'span 12' }}>
              <div class="tiles" style={{ marginBottom: 0 }}>
                <Tile
                  id="d-bytes"
                  label="Alive"
                  tip="Bytes of objects that the collection found reachable, in their size classes."
                  value={bytes(doc.heap.bytes)}
                  sub={many(doc.heap.objects, 'object')}
                />
                <Tile
                  id="d-refs"
                  label="References"
                  tip="Words in live objects that lead to another one, read by their types where these are known."
                  value={count(doc.heap.references)}
                  sub={many(doc.heap.spans, 'span')}
                />
                <Tile
                  id="d-stop"
                  label="The stop took"
                  tip="How long the world stood still to record this."
                  value={duration(doc.stop_ns)}
                  sub={`collection ${count(doc.cycle)}, ${clock(doc.at_ms)}`}
                />
                <Tile
                  id="d-roots"
                  label="Root words"
                  tip="Words outside the heap that lead into it: on stacks, in variables, handles and the like."
                  value={count(doc.roots.words)}
                  sub={many(doc.roots.list.length, 'kind')}
                />
              </div>
            </div>
            <Panel
              title="What keeps most"
              id="retained"
              about="An object keeps what only it leads to. Of a long list only the start is shown, not each element. Open one to see what it is made of."
            >
              {!doc.retained.done ? (
                <Empty title="Too many objects to tell.">
                  What each one keeps is reckoned for heaps of up to some hundred million objects, if there is memory for it.
                </Empty>
              ) : doc.retained.list.length === 0 ? (
                <Empty title="Nothing stands out.">No object keeps more than itself.</Empty>
              ) : (
                <Kept list={doc.retained.list} all={total} why={explain} />
              )}
            </Panel>
            {way}
            <Panel title="By type" span={6} id="types" about="What has no type of its own (WEFT_TYPE) goes by how it is scanned.">
              <Table
                label="Objects by type"
                limit={12}
                rows={doc.types.list}
                keyOf={(x) => `${x.type}${x.kind}`}
                sort={[2, true]}
                columns={[
                  {
                    name: 'Type',
                    of: (x) => (
                      <span data-type={x.type}>
                        <span class="fn">{x.type || x.kind}</span> {x.type && x.type !== x.kind && <span class="chip">{x.kind}</span>}
                        <Meter part={num(x.bytes) / total} />
                      </span>
                    ),
                    by: (x) => x.type,
                  },
                  { name: 'Objects', n: true, of: (x) => count(x.objects), by: (x) => num(x.objects) },
                  {
                    name: 'Bytes',
                    n: true,
                    of: (x) => (
                      <>
                        {bytes(x.bytes)} <span class="faint">{percent(num(x.bytes) / total)}</span>
                      </>
                    ),
                    by: (x) => num(x.bytes),
                  },
                ]}
              />
            </Panel>
            <Panel
              title="By who allocated them"
              span={6}
              id="dump-sites"
              about={`Estimated from the heap profile's samples, one in ${bytes(doc.sites.rate_bytes)}.`}
            >
              {doc.sites.list.length === 0 ? (
                <Empty title="Nothing that lives was sampled.">
                  Sample more often: <code>weft_set_mem_profile_rate(4096)</code>, early in the program.
                </Empty>
              ) : (
                <Table
                  label="Objects by allocation site"
                  limit={12}
                  rows={doc.sites.list}
                  sort={[2, true]}
                  columns={[
                    {
                      name: 'Allocated at',
                      of: (x) => (
                        <>
                          <Where stack={x.stack} />
                          <Meter part={num(x.bytes) / total} />
                        </>
                      ),
                    },
                    { name: 'Objects', n: true, of: (x) => count(x.objects), by: (x) => num(x.objects) },
                    { name: 'Bytes', n: true, of: (x) => bytes(x.bytes), by: (x) => num(x.bytes) },
                  ]}
                />
              )}
            </Panel>
            <Panel title="By size" span={6} id="dump-sizes">
              <Table
                label="Objects by size"
                limit={10}
                rows={doc.sizes.list}
                sort={[2, true]}
                columns={[
                  {
                    name: 'Each',
                    of: (x) => (
                      <>
                        {bytes(x.bytes_each)} <span class="chip">{x.kind}</span>
                      </>
                    ),
                    by: (x) => num(x.bytes_each),
                  },
                  { name: 'Objects', n: true, of: (x) => count(x.objects), by: (x) => num(x.objects) },
                  { name: 'Bytes', n: true, of: (x) => bytes(x.bytes), by: (x) => num(x.bytes) },
                ]}
              />
            </Panel>
            <Panel title="By what leads to them" span={6} id="roots" about="Bytes that this kind of root reaches, and none above it does.">
              <Table
                label="Roots by kind"
                limit={20}
                rows={doc.roots.list}
                columns={[
                  {
                    name: 'Root',
                    of: (x) => (
                      <>
                        {x.kind} {ROOTS[x.kind] && <span class="where">{ROOTS[x.kind]}</span>}
                      </>
                    ),
                  },
                  { name: 'Words', n: true, of: (x) => count(x.words), by: (x) => num(x.words) },
                  { name: 'Objects', n: true, of: (x) => count(x.objects), by: (x) => num(x.objects) },
                  { name: 'Bytes', n: true, of: (x) => bytes(x.reached_bytes), by: (x) => num(x.reached_bytes) },
                ]}
              />
            </Panel>
          </>
        )}
        {!doc && way}
      </div>
    </>
  )
}

// From the root to the object.
function Way({ doc }) {
  const { root, path, object } = doc
  const cycle = root.kind === 'cycle of finalizers'
  return (
    <div aria-live="polite">
      <p style={{ margin: '4px 0 10px' }}>
        <b class="fn">{object.type || object.kind}</b> at <span class="mono">{object.address}</span>, {bytes(object.bytes)}
        {object.offset > 0 && `, the address is ${count(object.offset)} bytes into it`}
        {object.site && (
          <>
            , allocated by <Place at={object.site} />
          </>
        )}
        :{path.length > 1 ? ` ${many(path.length - 1, 'step')} from a root.` : ' a root leads straight to it.'}
      </p>
      <ol class="path" data-path>
        <li class="root">
          <b>{cycle ? 'Nothing but its own cycle of finalizers' : root.kind}</b>
          {!cycle && (
            <>
              {' '}
              <span class="mono">{root.text || root.symbol}</span>
            </>
          )}
          <div class="where">
            {[
              root.fiber ? `fiber ${root.fiber}` : '',
              root.thread ? `thread ${root.thread}` : '',
              root.depth !== null && root.depth !== undefined ? `word ${root.depth} of its stack` : '',
              root.conservative ? 'read conservatively: a number may look like this pointer' : 'declared',
            ]
              .filter(Boolean)
              .join(' · ')}
          </div>
        </li>
        {path.map((x, i) =>
          x.address === undefined ? (
            <li key={i}>
              <span class="faint">{many(x.left_out ?? 0, 'step')} left out</span>
            </li>
          ) : (
            <li key={i}>
              <span class="fn">{x.type || x.kind}</span> <span class="where mono">{x.address}</span> <span class="soft">{bytes(x.bytes)}</span>
              <div class="where">
                {x.field !== null && x.field !== undefined ? `at +${x.field} leads to the next` : 'the object'}
                {x.site && ` · allocated by ${x.site}`}
              </div>
            </li>
          ),
        )}
      </ol>
    </div>
  )
}
