// The last seconds, from the flight recorder, or from now on, from a trace.
//
//     stops        ▕      ▕          marks where the world stood still
//     collections  ███               while one runs
//     could run    ▂▃▁▁▂             fibers that could, and wait for a processor
//     P0           ██▒███ ██         a lane per processor: which fiber runs there, coloured by its function
//     no P         ▒▒▒               calls that go on after their processor was taken from them
import { useEffect, useMemo, useReducer, useRef, useState } from 'preact/hooks'
import { bytes, clock, count, duration, many, percent } from './format.js'
import { readTrace } from './trace.js'
import { save, Taking, Trouble, useTaken } from './profiles.jsx'
import { Empty, Head, Panel, Table, Tile, token, useDark, useLive, useWidth } from './ui.jsx'

const SERIES = ['series-1', 'series-2', 'series-3', 'series-4', 'series-5']
const LEFT = 62,
  TOP = 24,
  LANE = 26,
  WITHOUT = 4

// Which function's fibers get which colour: those that ran most; the rest is grey.
function colours(trace) {
  const by = new Map()
  for (const f of trace.fibers.values()) by.set(f.name || '?', (by.get(f.name || '?') || 0) + f.ran)
  const order = [...by].sort((a, b) => b[1] - a[1])
  return { of: new Map(order.slice(0, SERIES.length).map(([name], i) => [name, SERIES[i]])), order, more: order.length - SERIES.length }
}

function firstAfter(list, t, key) {
  let low = 0,
    high = list.length
  while (low < high) {
    const mid = (low + high) >> 1
    if (key(list[mid]) <= t) low = mid + 1
    else high = mid
  }
  return low
}

export function Timeline() {
  const state = useLive('profiles')
  const { profiles, info } = state.docs
  const [got, setGot] = useState(null)
  const taken = useTaken()
  const flight = profiles?.flight
  const take = (path, seconds) =>
    taken.start(path, seconds, async (data) => {
      const trace = await readTrace(data)
      if (trace.events === 0) throw new Error('The trace has no events.')
      setGot({ trace, data, colours: colours(trace), at: Date.now() })
    })
  return (
    <>
      <Head title="Timeline">
        Who ran where and when, to the nanosecond: what the processors did, the collections, the stops, and how many fibers waited for their turn.
      </Head>
      <div class="grid">
        <Panel title="Look back, or record" id="take-trace">
          <div class="flame-bar" style={{ marginBottom: 0 }}>
            {flight && (
              <button type="button" class="button main-action" disabled={!!taken.job} data-flight onClick={() => take('flight', 0)}>
                Show the last seconds
              </button>
            )}
            <button
              type="button"
              class={`button ${flight ? '' : 'main-action'}`}
              disabled={!!taken.job}
              data-trace
              onClick={() => take('pprof/trace?seconds=2', 2)}
            >
              Record two seconds
            </button>
            <span class="soft small">
              {profiles &&
                (flight ? (
                  `The flight recorder keeps ${bytes(flight.bytes)}, ${count(flight.generations)} pieces of a second or so.`
                ) : (
                  <>
                    No flight recorder runs. The program starts one with <code>weft_flight_recorder_start(NULL)</code>; then the seconds before
                    something went wrong can be seen.
                  </>
                ))}
            </span>
          </div>
        </Panel>
        {(taken.job || taken.error || !got) && (
          <Panel title="Timeline" id="timeline-empty">
            <Trouble error={taken.error} />
            <Taking taken={taken} what={taken.job?.seconds ? 'Recording…' : 'Asking for the last seconds…'} />
            {!taken.job && !got && !taken.error && (
              <Empty title="Nothing recorded yet.">
                {flight
                  ? 'Press the button: what happened up to now is drawn here.'
                  : 'Press the button: what happens in the next two seconds is drawn here.'}
              </Empty>
            )}
          </Panel>
        )}
        {got && !taken.job && <Shown key={got.at} got={got} program={info?.program || 'weft'} />}
      </div>
    </>
  )
}

function Shown({ got, program }) {
  const { trace, colours: colour } = got
  const [view, setView] = useState([trace.from, trace.to])
  const [picked, setPicked] = useState(null) // { lane, i }
  const lanes = useMemo(() => [...trace.lanes, ...trace.without.slice(0, WITHOUT)], [trace])
  const span = trace.to - trace.from
  const move = (from, to) => {
    const wide = Math.min(span, Math.max(2000, to - from))
    const left = Math.min(trace.to - wide, Math.max(trace.from, from))
    setView([left, left + wide])
  }
  const zoom = (by, at = (view[0] + view[1]) / 2) => move(at - (at - view[0]) * by, at + (view[1] - at) * by)
  const pan = (part) => move(view[0] + part * (view[1] - view[0]), view[1] + part * (view[1] - view[0]))
  const pick = (lane, i) => {
    const piece = lanes[lane]?.pieces[i]
    if (!piece) return
    setPicked({ lane, i })
    const wide = view[1] - view[0]
    if (piece.t0 < view[0] || piece.t1 > view[1]) move((piece.t0 + piece.t1) / 2 - wide / 2, (piece.t0 + piece.t1) / 2 + wide / 2)
  }
  const keys = (e) => {
    const mid = (view[0] + view[1]) / 2
    const current = picked || { lane: 0, i: Math.max(0, firstAfter(lanes[0].pieces, view[0], (x) => x.t0) - 1) }
    const beside = (lane) => {
      const l = lanes[lane]
      if (!l) return
      const t = picked ? lanes[picked.lane].pieces[picked.i].t0 : mid
      pick(lane, Math.max(0, firstAfter(l.pieces, t, (x) => x.t0) - 1))
    }
    const fn = {
      ArrowLeft: () => pan(-0.15),
      ArrowRight: () => pan(0.15),
      '+': () => zoom(0.6),
      '=': () => zoom(0.6),
      '-': () => zoom(1 / 0.6),
      Home: () => move(trace.from, trace.from + view[1] - view[0]),
      End: () => move(trace.to - (view[1] - view[0]), trace.to),
      0: () => move(trace.from, trace.to),
      '.': () => pick(current.lane, picked ? current.i + 1 : current.i),
      ',': () => pick(current.lane, current.i - 1),
      ArrowDown: () => beside(Math.min(lanes.length - 1, picked ? current.lane + 1 : 0)),
      ArrowUp: () => beside(Math.max(0, current.lane - 1)),
      Escape: () => setPicked(null),
    }[e.key]
    if (!fn || e.ctrlKey || e.metaKey || e.altKey) return
    e.preventDefault()
    fn()
  }
  const busy = trace.lanes.reduce((n, l) => n + l.pieces.reduce((m, x) => m + (x.call ? 0 : x.t1 - x.t0), 0), 0)
  const stopped = trace.stops.reduce((n, s) => n + s.t1 - s.t0, 0)
  const p99 = trace.waits.length ? trace.waits[Math.min(trace.waits.length - 1, Math.floor(trace.waits.length * 0.99))] : null
  const piece = picked && lanes[picked.lane].pieces[picked.i]
  const wallOf = (t) => (trace.wall ? clock(trace.wall.ms + (t - trace.wall.ns) / 1e6, true) : '')
  return (
    <>
      <Panel
        title="Timeline"
        id="timeline"
        about={`${duration(span)} up to ${wallOf(trace.to)}: ${many(trace.events, 'event')} of ${many(trace.fibers.size, 'fiber')}.`}
        actions={
          <>
            <button type="button" class="button icon" aria-label="Zoom in" onClick={() => zoom(0.5)}>
              +
            </button>
            <button type="button" class="button icon" aria-label="Zoom out" onClick={() => zoom(2)}>
              −
            </button>
            <button type="button" class="button" onClick={() => move(trace.from, trace.to)}>
              All
            </button>
            <button type="button" class="button" onClick={() => save(`${program}.trace`, got.data)}>
              Save
            </button>
          </>
        }
      >
        <Canvas trace={trace} lanes={lanes} colour={colour} view={view} move={move} zoom={zoom} pick={pick} picked={picked} keys={keys} />
        <div class="key" style={{ marginTop: '10px' }}>
          {colour.order.slice(0, SERIES.length).map(([name, ran]) => (
            <span key={name}>
              <i style={{ background: `var(--${colour.of.get(name)})` }} />
              <span class="fn">{name === '?' ? 'not named' : name}</span> <span class="faint">{ran > 0 ? duration(ran) : 'in calls'}</span>
            </span>
          ))}
          {colour.more > 0 && (
            <span>
              <i style={{ background: 'var(--series-6)' }} />
              others
            </span>
          )}
          <span class="faint">pale: in a call of the system</span>
        </div>
        <p class="small faint" style={{ marginTop: '6px' }}>
          Drag to move, Ctrl and the wheel or + and − to zoom; arrow keys move and choose a lane, comma and full stop choose the piece before and
          after, 0 shows all.
        </p>
        <div class="details" aria-live="polite" data-details>
          {piece ? (
            <Piece piece={piece} trace={trace} wallOf={wallOf} lane={lanes[picked.lane]} />
          ) : (
            <span class="soft">Choose a piece of a lane to see which fiber it is, and why it stopped.</span>
          )}
        </div>
      </Panel>
      <div style={{ gridColumn: 'span 12' }}>
        <div class="tiles three" style={{ marginBottom: 0 }}>
          <Tile
            id="t-busy"
            label="Processors ran fibers"
            tip="The part of the time of all processors in which a fiber ran on them."
            value={percent(trace.lanes.length ? busy / (span * trace.lanes.length) : 0)}
            sub={many(trace.lanes.length, 'processor')}
          />
          <Tile
            id="t-wait"
            label="Wait for a processor"
            tip="Of 100 fibers that could run, 99 did after less than this."
            value={duration(p99)}
            unit="p99"
            sub={trace.waits.length ? `longest ${duration(trace.waits[trace.waits.length - 1])}, of ${count(trace.waits.length)}` : 'none'}
          />
          <Tile
            id="t-stops"
            label="Stops"
            tip="How long the world stood still in these seconds."
            value={duration(stopped)}
            sub={`${many(trace.stops.length, 'stop')}, ${many(trace.cycles.length, 'collection')}`}
          />
        </div>
      </div>
      <Panel title="Fibers by time on a processor" span={trace.logs.length ? 6 : undefined} id="t-fibers">
        <Table
          label="Fibers by time on a processor"
          limit={10}
          sort={[2, true]}
          rows={[...trace.fibers.values()].filter((f) => f.pieces > 0)}
          keyOf={(f) => f.id}
          columns={[
            { name: 'Fiber', of: (f) => f.id, by: (f) => f.id },
            { name: 'Function', of: (f) => <span class="fn">{f.name || '–'}</span>, by: (f) => f.name },
            { name: 'Ran', n: true, of: (f) => duration(f.ran), by: (f) => f.ran },
            { name: 'Waited for a processor', n: true, of: (f) => duration(f.waited), by: (f) => f.waited },
            { name: 'Longest', n: true, of: (f) => duration(f.worst), by: (f) => f.worst },
          ]}
        />
      </Panel>
      {trace.logs.length > 0 && (
        <Panel title="Messages" span={6} id="t-logs" about="What the program, or the doctor, wrote into the trace.">
          <Table
            label="Messages"
            limit={12}
            rows={trace.logs}
            columns={[
              {
                name: 'When',
                n: true,
                of: (l) => (
                  <button type="button" class="sort" onClick={() => move(l.t - 5e6, l.t + 5e6)}>
                    {wallOf(l.t)}
                  </button>
                ),
              },
              { name: 'Category', of: (l) => <span class="chip">{l.key}</span> },
              { name: 'Message', fill: true, of: (l) => l.text },
            ]}
          />
        </Panel>
      )}
    </>
  )
}

function Piece({ piece, trace, wallOf, lane }) {
  const f = trace.fibers.get(piece.g)
  const stack = piece.stack ? piece.stack() : []
  return (
    <div class="grid" style={{ gap: '8px 24px' }}>
      <dl class="pairs span-4">
        <dt>fiber</dt>
        <dd>
          <b>{piece.g}</b> {f?.name && <span class="fn">{f.name}</span>}
        </dd>
        <dt>{piece.call ? 'in a call' : 'ran'}</dt>
        <dd>
          {duration(piece.t1 - piece.t0)} {piece.p < 0 ? 'without a processor' : `on ${lane.label}`}, thread {piece.m}
        </dd>
        <dt>from</dt>
        <dd>
          {wallOf(piece.t0)}, {duration(piece.t0 - trace.from)} from the start
        </dd>
        {piece.why && (
          <>
            <dt>then</dt>
            <dd>{piece.why}</dd>
          </>
        )}
      </dl>
      {stack.length > 0 && (
        <pre class="span-8">
          {stack
            .slice(0, 8)
            .map((s) => `${s.name}${s.file ? ` at ${s.file.replace(/^.*\//, '')}:${s.line}` : ''}`)
            .join('\n')}
        </pre>
      )}
    </div>
  )
}

function Canvas({ trace, lanes, colour, view, move, zoom, pick, picked, keys }) {
  const [room, width] = useWidth()
  const canvas = useRef()
  const dark = useDark()
  const drag = useRef(null)
  const [, again] = useReducer((n) => n + 1, 0)
  const rows = { stops: TOP, cycles: TOP + 18, ready: TOP + 38, lanes: TOP + 84 }
  const height = rows.lanes + lanes.length * (LANE + 4) + 6
  const [t0, t1] = view
  const x = (t) => LEFT + ((t - t0) / (t1 - t0)) * (width - LEFT)
  const time = (px) => t0 + ((px - LEFT) / (width - LEFT)) * (t1 - t0)
  const most = useMemo(() => trace.runnable.reduce((n, r) => Math.max(n, r[1]), 1), [trace])

  useEffect(() => {
    if (!width) return
    const c = canvas.current,
      scale = devicePixelRatio || 1
    c.width = width * scale
    c.height = height * scale
    c.style.height = `${height}px`
    const g = c.getContext('2d')
    g.scale(scale, scale)
    draw(g)
  }, [width, height, t0, t1, picked, dark, trace])

  // Spans, each to be seen, however short: a pixel is as dark as they fill it, and never pale.
  function strip(g, spans, y, height, colour) {
    const full = new Float32Array(width + 1)
    for (const s of spans) {
      if (s.t1 < t0 || s.t0 > t1) continue
      const left = Math.max(LEFT, x(s.t0)),
        right = Math.min(width, Math.max(x(s.t1), left + 0.01))
      for (let px = Math.floor(left); px < right && px < width; px++) full[px] += Math.min(px + 1, right) - Math.max(px, left)
    }
    g.fillStyle = colour
    for (let px = LEFT; px < width; px++) {
      if (full[px] === 0) continue
      g.globalAlpha = Math.min(1, 0.35 + full[px])
      g.fillRect(px, y, 1, height)
    }
    g.globalAlpha = 1
  }

  function draw(g) {
    const ink = {
      text: token('text'),
      faint: token('text-faint'),
      line: token('line'),
      sunken: token('sunken'),
      bad: token('bad'),
      warn: token('series-2'),
      gc: token('series-4'),
      ready: token('series-3'),
      other: token('series-6'),
      surface: token('surface'),
    }
    const hue = new Map(SERIES.map((s) => [s, token(s)]))
    const plot = width - LEFT
    g.clearRect(0, 0, width, height)
    g.font = `11px ${getComputedStyle(document.body).fontFamily}`
    g.textBaseline = 'middle'
    // the axis
    const step = nice((t1 - t0) / Math.max(2, plot / 110))
    g.fillStyle = ink.faint
    g.strokeStyle = ink.line
    g.lineWidth = 1
    g.textAlign = 'center'
    for (let t = Math.ceil((t0 - trace.from) / step) * step; t <= t1 - trace.from; t += step) {
      const px = Math.round(x(t + trace.from)) + 0.5
      g.beginPath()
      g.moveTo(px, TOP - 6)
      g.lineTo(px, height)
      g.stroke()
      if (px > LEFT + 8 && px < width - 20) g.fillText(t === 0 ? '0' : duration(Math.round(t)), px, 9)
    }
    // names
    g.textAlign = 'right'
    g.fillStyle = ink.faint
    const name = (text, y) => g.fillText(text, LEFT - 8, y)
    name('stops', rows.stops + 7)
    name('collect', rows.cycles + 8)
    name('could run', rows.ready + 12)
    g.fillText(`≤ ${most}`, LEFT - 8, rows.ready + 27)
    g.save()
    g.beginPath()
    g.rect(LEFT, 0, plot, height)
    g.clip()
    // stops and collections, never thinner than can be seen
    strip(g, trace.stops, rows.stops, 14, ink.bad)
    strip(g, trace.cycles, rows.cycles + 2, 12, ink.gc)
    // how many could run: in each pixel the most, pale, and on average
    g.fillStyle = ink.ready
    const r = trace.runnable
    let i = Math.max(0, firstAfter(r, t0, (p) => p[0]) - 1)
    let now = i < r.length && r[i][0] <= t0 ? r[i][1] : 0
    for (let px = LEFT; px < width; px++) {
      const from = time(px),
        until = time(px + 1)
      let top = now,
        sum = 0,
        since = from
      for (; i < r.length && r[i][0] <= until; i++) {
        sum += now * Math.max(0, r[i][0] - since)
        since = Math.max(from, r[i][0])
        top = Math.max(top, (now = r[i][1]))
      }
      sum += now * (until - since)
      if (top === 0) continue
      g.globalAlpha = 0.35
      g.fillRect(px, rows.ready + 36 - Math.max(1.5, (top / most) * 34), 1, Math.max(1.5, (top / most) * 34))
      g.globalAlpha = 1
      const h = (sum / (until - from) / most) * 34
      g.fillRect(px, rows.ready + 36 - h, 1, h)
    }
    // lanes: where pieces are narrower than a pixel, as dark as the pixel is full
    lanes.forEach((lane, n) => {
      const y = rows.lanes + n * (LANE + 4)
      g.fillStyle = ink.sunken
      g.fillRect(LEFT, y, plot, LANE)
      let k = Math.max(0, firstAfter(lane.pieces, t0, (p) => p.t0) - 1)
      let pixel = -1,
        full = 0,
        last = null
      const flush = () => {
        if (pixel >= 0 && last) {
          g.globalAlpha = Math.min(1, 0.25 + full * 0.75)
          g.fillStyle = last
          g.fillRect(pixel, y, 1, LANE)
          g.globalAlpha = 1
        }
        full = 0
      }
      for (; k < lane.pieces.length && lane.pieces[k].t0 <= t1; k++) {
        const p = lane.pieces[k]
        if (p.t1 < t0) continue
        const left = Math.max(LEFT, x(p.t0)),
          right = Math.min(width, x(p.t1)),
          w = right - left
        const f = trace.fibers.get(p.g)
        const c = hue.get(colour.of.get(f?.name || '?')) || ink.other
        if (w < 1) {
          const at = Math.floor(left)
          if (at !== pixel) (flush(), (pixel = at))
          full += w * (p.call ? 0.4 : 1)
          last = c
          continue
        }
        flush()
        pixel = -1
        g.globalAlpha = p.call ? 0.4 : p.g & 1 ? 0.84 : 1 // neighbours of one function differ
        g.fillStyle = c
        g.fillRect(left, y, w, LANE)
        g.globalAlpha = 1
        if (w > 3) {
          g.fillStyle = ink.surface
          g.fillRect(right - 0.5, y, 0.5, LANE)
        }
        if (w > 46 && !p.call) {
          g.textAlign = 'left'
          g.fillStyle = inkOn(c)
          const text = `${p.g}${f?.name ? ` ${f.name}` : ''}`
          g.fillText(g.measureText(text).width > w - 10 ? String(p.g) : text, left + 5, y + LANE / 2)
        }
      }
      flush()
      if (picked && picked.lane === n) {
        const p = lane.pieces[picked.i]
        g.strokeStyle = ink.text
        g.lineWidth = 2
        g.strokeRect(x(p.t0) - 1, y - 1, Math.max(3, x(p.t1) - x(p.t0) + 2), LANE + 2)
        g.lineWidth = 1
      }
    })
    g.fillStyle = ink.warn
    for (const l of trace.logs)
      if (l.t >= t0 && l.t <= t1) {
        g.beginPath()
        g.moveTo(x(l.t), TOP - 8)
        g.lineTo(x(l.t) - 4, TOP - 1)
        g.lineTo(x(l.t) + 4, TOP - 1)
        g.fill()
      }
    g.restore()
    g.textAlign = 'right'
    lanes.forEach((lane, n) => {
      g.fillStyle = picked && picked.lane === n ? ink.text : ink.faint
      g.fillText(lane.label, LEFT - 8, rows.lanes + n * (LANE + 4) + LANE / 2)
    })
  }

  const at = (e) => {
    const r = canvas.current.getBoundingClientRect()
    return [e.clientX - r.left, e.clientY - r.top]
  }
  const down = (e) => {
    if (e.button !== 0) return
    drag.current = { x: at(e)[0], view, moved: false }
    canvas.current.setPointerCapture(e.pointerId)
    again()
  }
  const drags = (e) => {
    const d = drag.current
    if (!d) return
    const dx = at(e)[0] - d.x
    if (Math.abs(dx) > 3) d.moved = true
    const dt = (dx / (width - LEFT)) * (d.view[1] - d.view[0])
    if (d.moved) move(d.view[0] - dt, d.view[1] - dt)
  }
  const up = (e) => {
    const d = drag.current
    drag.current = null
    again()
    if (!d || d.moved) return
    const [px, py] = at(e)
    const lane = Math.floor((py - rows.lanes) / (LANE + 4))
    if (!lanes[lane]) return
    const t = time(px),
      slack = ((t1 - t0) / (width - LEFT)) * 3
    const list = lanes[lane].pieces
    let i = firstAfter(list, t, (p) => p.t0) - 1
    if (!(list[i] && list[i].t1 + slack >= t) && list[i + 1] && list[i + 1].t0 - slack <= t) i++
    if (list[i] && list[i].t1 + slack >= t) pick(lane, i)
  }
  const wheel = (e) => {
    if (!e.ctrlKey && !e.metaKey) return
    e.preventDefault()
    zoom(e.deltaY > 0 ? 1.25 : 0.8, time(at(e)[0]))
  }
  useEffect(() => {
    const c = canvas.current // not passive, or the browser zooms the page
    c.addEventListener('wheel', wheel, { passive: false })
    return () => c.removeEventListener('wheel', wheel)
  })
  const busiest = colour.order[0]
  return (
    <div class="timeline" ref={room}>
      <canvas
        ref={canvas}
        class={drag.current ? 'dragged' : ''}
        tabIndex={0}
        role="application"
        aria-label={`Timeline of ${duration(t1 - t0)}, ${lanes.length} lanes, ${trace.stops.length} stops, ${trace.cycles.length} collections. ${busiest ? `Most time: ${busiest[0]}, ${duration(busiest[1])}.` : ''} Arrow keys move and choose; the table below has the same by fiber.`}
        onPointerDown={down}
        onPointerMove={drags}
        onPointerUp={up}
        onPointerCancel={() => (drag.current = null)}
        onKeyDown={keys}
        onDblClick={(e) => zoom(0.4, time(at(e)[0]))}
        style={{ height: `${height}px` }}
      />
    </div>
  )
}

// Black or white, whichever can be read on it.
function inkOn(colour) {
  const part = (i) => {
    const c = parseInt(colour.slice(i, i + 2), 16) / 255
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  }
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5) > 0.18 ? '#000' : '#fff'
}

function nice(step) {
  const ten = 10 ** Math.floor(Math.log10(step))
  return [1, 2, 5, 10].map((m) => m * ten).find((s) => s >= step)
}
