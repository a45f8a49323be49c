// A flame graph: what calls what, each as wide as it counts. Callers stand above what they call.
//
// One element per function that is wide enough to be seen, so that it can have the focus, be read out, and be found by the browser's own search.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { functions, tree } from './pprof.js'
import { percent, unit } from './format.js'
import { Table } from './ui.jsx'

const base = (path) => path.replace(/^.*\//, '')

// What is drawn while `at` is as wide as the graph: it, those above it, and below it what is wider than the smallest width.
function layout(at, least) {
  const boxes = []
  for (let n = at.parent; n; n = n.parent) boxes.push({ node: n, left: 0, width: 1, above: true })
  boxes.reverse()
  const whole = Math.abs(at.total) || 1
  const put = (node, left) => {
    const width = Math.abs(node.total) / whole
    boxes.push({ node, left, width })
    for (const child of node.children) {
      if (Math.abs(child.total) / whole >= least) put(child, left)
      left += Math.abs(child.total) / whole
    }
  }
  put(at, 0)
  return boxes
}

export function Flame({ profile, index, by }) {
  const root = useMemo(() => tree(profile, index, { label: by || undefined }), [profile, index, by])
  const all = useMemo(() => functions(profile, index), [profile, index])
  const [at, setAt] = useState(root)
  const [focus, setFocus] = useState(root)
  const [over, setOver] = useState(null)
  const [find, setFind] = useState('')
  const box = useRef()
  useEffect(() => {
    setAt(root)
    setFocus(root)
  }, [root])
  const of = root === at || isIn(at, root) ? at : root // the effect above has not run yet
  const format = unit(profile.types[index].unit)
  const total = root.total || 1
  const wanted = find.trim().toLowerCase()
  const hit = (node) => wanted !== '' && (node.name.toLowerCase().includes(wanted) || node.file.toLowerCase().includes(wanted))
  const found = useMemo(() => {
    if (!wanted) return 0
    const sum = (node) => (hit(node) ? node.total : node.children.reduce((n, c) => n + sum(c), 0))
    return sum(root)
  }, [root, wanted])
  const width = box.current?.clientWidth || 1000
  const boxes = useMemo(() => layout(of, 1.5 / width), [of, width])
  const shown = new Map(boxes.map((b, i) => [b.node, i]))
  const row = matchMedia('(max-width: 860px)').matches ? 26 : 22
  const depth = boxes.reduce((d, b) => Math.max(d, b.node.depth), 0) + 1
  const told = over || focus

  const move = (node) => {
    if (!node || !shown.has(node)) return
    setFocus(node)
    box.current.querySelector(`[data-box="${shown.get(node)}"]`)?.focus({ preventScroll: false })
  }
  const zoom = (node) => {
    setAt(node)
    setFocus(node)
    requestAnimationFrame(() => box.current?.querySelector('[tabindex="0"]')?.focus())
  }
  const keys = (e) => {
    const n = focus,
      list = n.parent ? n.parent.children.filter((c) => shown.has(c)) : [n]
    const step = {
      ArrowUp: () => move(n.parent),
      ArrowDown: () => move(n.children.find((c) => shown.has(c))),
      ArrowLeft: () => move(list[list.indexOf(n) - 1]),
      ArrowRight: () => move(list[list.indexOf(n) + 1]),
      Home: () => move(root),
      Escape: () => zoom(root),
      Backspace: () => of.parent && zoom(of.parent),
    }[e.key]
    if (!step) return
    e.preventDefault()
    step()
  }
  return (
    <>
      <div class="flame-bar">
        <label class="field" style={{ flex: '1 1 200px' }}>
          <span class="unseen">Find functions</span>
          <input
            type="search"
            placeholder="Find a function or file"
            value={find}
            onInput={(e) => setFind(e.currentTarget.value)}
            style={{ width: '100%' }}
          />
        </label>
        <span class="small soft" aria-live="polite">
          {wanted ? `${percent(found / total)} in what is found` : ''}
        </span>
        <button type="button" class="button" disabled={of === root} onClick={() => zoom(root)}>
          Whole graph
        </button>
      </div>
      <div
        class="flame"
        ref={box}
        role="group"
        aria-label="Flame graph. Arrow keys go to callers and what they call, Enter widens, Escape shows the whole."
        onKeyDown={keys}
        style={{ height: `${depth * row}px` }}
        onMouseLeave={() => setOver(null)}
      >
        {boxes.map(({ node, left, width: w, above }, i) => {
          const thin = w * width < 24
          return (
            <button
              type="button"
              key={i}
              data-box={i}
              tabIndex={(shown.has(focus) ? node === focus : node === of) ? 0 : -1}
              class={`${node.owner === 'label' ? 'label-node' : node.owner} ${node.name.length % 2 ? 'odd' : ''} ${hit(node) ? 'found' : ''} ${above ? 'above' : ''} ${thin ? 'thin' : ''} ${node.total < 0 ? 'negative' : ''}`}
              style={{ left: `${left * 100}%`, width: `max(1px, calc(${w * 100}% - .5px))`, top: `${node.depth * row}px` }}
              aria-label={`${node.name}, ${format(node.total)}, ${percent(node.total / total)}; itself ${format(node.self)}`}
              onClick={() => zoom(node)}
              onFocus={() => setFocus(node)}
              onMouseEnter={() => setOver(node)}
            >
              {thin ? '' : node.name}
            </button>
          )
        })}
      </div>
      <div class="about-node">
        <b class="fn">{told.name === 'all' ? 'everything' : told.name}</b>
        {told.file && (
          <span class="where">
            {base(told.file)}
            {told.line ? `:${told.line}` : ''}
          </span>
        )}
        <span>
          {format(told.total)} <span class="soft">with what it calls, {percent(told.total / total)}</span>
        </span>
        <span>
          {format(told.self)} <span class="soft">itself, {percent(told.self / total)}</span>
        </span>
      </div>
      <div class="key" style={{ margin: '4px 0 14px' }}>
        <span>
          <i style={{ background: 'var(--flame-program)' }} />
          the program
        </span>
        <span>
          <i style={{ background: 'var(--flame-runtime)' }} />
          weft
        </span>
        <span>
          <i style={{ background: 'var(--flame-library)' }} />C library, kernel, unknown
        </span>
      </div>
      <Table
        label="Functions"
        limit={15}
        rows={all}
        keyOf={(f) => `${f.name}\n${f.file}`}
        sort={[1, true]}
        caption="The same by function"
        columns={[
          {
            name: 'Function',
            of: (f) => (
              <span data-function={f.name}>
                <span class="fn">{f.name}</span>
                {f.file && <div class="where">{base(f.file)}</div>}
              </span>
            ),
            by: (f) => f.name,
          },
          {
            name: 'Itself',
            n: true,
            of: (f) => (
              <>
                {format(f.self)} <span class="faint">{percent(f.self / total)}</span>
              </>
            ),
            by: (f) => f.self,
          },
          {
            name: 'With what it calls',
            n: true,
            of: (f) => (
              <>
                {format(f.total)} <span class="faint">{percent(f.total / total)}</span>
              </>
            ),
            by: (f) => f.total,
          },
        ]}
      />
    </>
  )
}

function isIn(node, root) {
  for (let n = node; n; n = n.parent) if (n === root) return true
  return false
}
