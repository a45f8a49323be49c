// What the panels are made of.
import { createContext } from 'preact'
import { useCallback, useContext, useEffect, useId, useMemo, useReducer, useRef, useState } from 'preact/hooks'
import { live } from './api.js'
import { NONE, place } from './format.js'

// The state of api.js, again at each round; `docs` are asked for while the caller is shown.
export function useLive(...docs) {
  const [, again] = useReducer((n) => n + 1, 0)
  useEffect(() => live.subscribe(again), [])
  useEffect(() => live.want(docs), [docs.join()])
  return live.state
}

// ---- explanations ----

// One for the whole page: shown while a word with a dotted line is pointed at, or has the focus.
const Tips = createContext(() => {})

export function TipLayer({ children }) {
  const [tip, setTip] = useState(null)
  const box = useRef()
  const show = useCallback((t) => setTip(t), [])
  useEffect(() => {
    const away = (e) => (e.type !== 'keydown' || e.key === 'Escape' ? setTip(null) : 0)
    addEventListener('scroll', away, { passive: true, capture: true })
    addEventListener('keydown', away)
    return () => {
      removeEventListener('scroll', away, { capture: true })
      removeEventListener('keydown', away)
    }
  }, [])
  useEffect(() => {
    if (!tip) return
    const b = box.current,
      w = b.offsetWidth,
      h = b.offsetHeight,
      r = tip.rect
    const below = r.bottom + 8 + h < innerHeight
    b.style.left = `${Math.max(12, Math.min(r.left, innerWidth - w - 12))}px`
    b.style.top = `${below ? r.bottom + 8 : Math.max(8, r.top - h - 8)}px`
  }, [tip])
  return (
    <Tips.Provider value={show}>
      {children}
      {tip && (
        <div class="tip" role="tooltip" id="tip" ref={box}>
          {tip.text}
        </div>
      )}
    </Tips.Provider>
  )
}

export function Hint({ tip, children, ...rest }) {
  const show = useContext(Tips)
  const id = useId()
  if (!tip) return <span {...rest}>{children}</span>
  const on = (e) => show({ text: tip, rect: e.currentTarget.getBoundingClientRect() })
  const off = () => show(null)
  return (
    <span class="hint" tabIndex={0} aria-describedby={id} onMouseEnter={on} onMouseLeave={off} onFocus={on} onBlur={off} {...rest}>
      {children}
      <span class="unseen" id={id}>
        {tip}
      </span>
    </span>
  )
}

// ---- frames ----

export function Head({ title, children }) {
  return (
    <div class="head">
      <h1>{title}</h1>
      {children && <p>{children}</p>}
    </div>
  )
}

export function Panel({ title, about, actions, span, id, children }) {
  const name = useId()
  return (
    <section class={`panel ${span ? `span-${span}` : ''}`} aria-labelledby={name} data-panel={id}>
      <header>
        <h2 id={name}>{title}</h2>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {about && <p class="about">{about}</p>}
      <div class="body">{children}</div>
    </section>
  )
}

// A document's panel: waits for it, or says why there is none.
export function Of({ doc, refused, children, height = 120 }) {
  if (doc) return children(doc)
  return (
    <div class="empty" style={{ minHeight: `${height}px` }}>
      {refused ? (
        <>
          <b>The process does not tell this.</b>
          <span>{refused.message}</span>
        </>
      ) : (
        <span class="wait">Waiting for the first answer…</span>
      )}
    </div>
  )
}

export function Empty({ title, children }) {
  return (
    <div class="empty">
      <b>{title}</b>
      {children && <span>{children}</span>}
    </div>
  )
}

export function Tile({ label, tip, value, unit, sub, spark, id }) {
  return (
    <div class="tile" data-tile={id}>
      <div class="label">
        <Hint tip={tip}>{label}</Hint>
      </div>
      <div class="value" data-value>
        {value}
        {unit && <small> {unit}</small>}
      </div>
      <div class="sub">{sub || '\u00a0'}</div>
      {spark && <Spark values={spark} />}
    </div>
  )
}

function Spark({ values }) {
  const known = values.filter((v) => v !== null)
  if (known.length < 2) return <svg class="spark" aria-hidden="true" />
  const top = Math.max(...known) || 1,
    low = Math.min(...known)
  const floor = low > top * 0.8 ? low - (top - low || top) * 0.5 : 0
  const x = (i) => (i / (known.length - 1)) * 100
  const y = (v) => 31 - ((v - floor) / (top - floor || 1)) * 26
  const line = known.map((v, i) => `${i ? 'L' : 'M'}${x(i).toFixed(2)} ${y(v).toFixed(2)}`).join('')
  return (
    <svg class="spark" viewBox="0 0 100 34" preserveAspectRatio="none" aria-hidden="true">
      <path class="area" d={`${line}L100 34L0 34Z`} />
      <path d={line} />
    </svg>
  )
}

export function Meter({ part, kind }) {
  return (
    <div class="meter" aria-hidden="true">
      <i class={kind} style={{ width: `${Math.max(0, Math.min(1, part || 0)) * 100}%` }} />
    </div>
  )
}

export function Place({ at, none = NONE }) {
  const p = place(at)
  if (!p.name) return <span class="faint">{none}</span>
  return (
    <>
      <span class="fn">{p.name}</span>
      {p.where && (
        <>
          {' '}
          <span class="where" title={p.path}>
            {p.where}
          </span>
        </>
      )}
    </>
  )
}

export function Segments({ label, value, options, onChange }) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {options.map(([v, text]) => (
        <button key={v} type="button" aria-pressed={String(v === value)} onClick={() => onChange(v)}>
          {text}
        </button>
      ))}
    </div>
  )
}

// ---- tables ----

// columns: { name, tip, n: is a number, of(row): what is shown, by(row): what it is sorted by, fill }. A column with `by` can be sorted.
export function Table({ columns, rows, caption, sort, limit = 100, keyOf, label }) {
  const [by, setBy] = useState(sort || null) // [column, descending]
  const [all, setAll] = useState(false)
  const sorted = useMemo(() => {
    if (!by || !columns[by[0]].by) return rows
    const value = columns[by[0]].by
    return [...rows].sort((a, b) => {
      const x = value(a),
        y = value(b)
      return (x < y ? -1 : x > y ? 1 : 0) * (by[1] ? -1 : 1)
    })
  }, [rows, by])
  const shown = all ? sorted : sorted.slice(0, limit)
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table class="list">
        {caption && <caption>{caption}</caption>}
        <thead>
          <tr>
            {columns.map((c, i) => (
              <th
                key={c.name}
                scope="col"
                class={c.n ? 'n' : c.fill ? 'fill' : ''}
                aria-sort={by && by[0] === i ? (by[1] ? 'descending' : 'ascending') : undefined}
              >
                {c.by ? (
                  <button type="button" class="sort" onClick={() => setBy([i, by && by[0] === i ? !by[1] : !!c.n])}>
                    {c.name}
                    {by && by[0] === i ? (by[1] ? ' ↓' : ' ↑') : ''}
                  </button>
                ) : (
                  c.name
                )}
                {c.tip && (
                  <>
                    {' '}
                    <Hint tip={c.tip} aria-label={`about ${c.name}`}>
                      ?
                    </Hint>
                  </>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((row, i) => (
            <tr key={keyOf ? keyOf(row) : i}>
              {columns.map((c) => (
                <td key={c.name} class={c.n ? 'n' : ''}>
                  {c.of(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {sorted.length > limit && (
        <p class="small soft">
          <button type="button" class="sort" onClick={() => setAll(!all)}>
            {all ? `Show the first ${limit} only` : `${sorted.length - limit} more: show all`}
          </button>
        </p>
      )}
    </div>
  )
}

// Whether the page is dark now: what draws on a canvas reads its colours again.
const dark = matchMedia('(prefers-color-scheme: dark)')
export function useDark() {
  const [is, set] = useState(dark.matches)
  useEffect(() => {
    const fn = () => set(dark.matches)
    dark.addEventListener('change', fn)
    return () => dark.removeEventListener('change', fn)
  }, [])
  return is
}

export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}

export function useWidth() {
  const ref = useRef()
  const [width, setWidth] = useState(0)
  useEffect(() => {
    const watch = new ResizeObserver(() => ref.current && setWidth(Math.floor(ref.current.clientWidth)))
    watch.observe(ref.current)
    return () => watch.disconnect()
  }, [])
  return [ref, width]
}
