// The page: a frame with tabs, of which one is shown. Its name is in the address behind '#', so that it can be linked to.
import { Component, render } from 'preact'
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { live } from './api.js'
import { ago, clock, duration } from './format.js'
import { TipLayer, useLive } from './ui.jsx'
import { Overview } from './overview.jsx'
import { Doctor } from './doctor.jsx'
import { Fibers } from './fibers.jsx'
import { Heap } from './heap.jsx'
import { Memory } from './memory.jsx'
import { Stops } from './stops.jsx'
import { Profiles } from './profiles.jsx'
import { Retention } from './retention.jsx'
import { Timeline } from './timeline.jsx'
import './style.css'

const TABS = [
  ['overview', 'Overview', Overview, 'M3 12h4l3-7 4 14 3-7h4'],
  ['doctor', 'Doctor', Doctor, 'M12 4v16M4 12h16'],
  null,
  ['fibers', 'Fibers', Fibers, 'M4 7c5 0 5 10 8 10s3-10 8-10M4 17c5 0 5-10 8-10s3 10 8 10'],
  ['timeline', 'Timeline', Timeline, 'M4 6h9M8 12h12M4 18h7'],
  ['profiles', 'Profiles', Profiles, 'M4 20h16M6 16h12M8 12h7M10 8h3M11 4h1'],
  null,
  ['heap', 'Heap', Heap, 'M4 19V9l4 5 4-9 4 11 4-6v9z'],
  ['memory', 'Memory', Memory, 'M4 7h16v10H4zM9 7v10M15 7v10'],
  ['retention', 'Retention', Retention, 'M6 6h4v4H6zM14 14h4v4h-4zM10 8h6v6'],
  ['stops', 'Stops', Stops, 'M9 5v14M15 5v14'],
]
const NAMES = TABS.filter(Boolean)

function tabOf(hash) {
  return NAMES.find(([id]) => `#${id}` === hash) || NAMES[0]
}

function useTab() {
  const [tab, setTab] = useState(tabOf(location.hash))
  useEffect(() => {
    const fn = () => setTab(tabOf(location.hash))
    addEventListener('hashchange', fn)
    return () => removeEventListener('hashchange', fn)
  }, [])
  return tab
}

function Mark() {
  return (
    <div class="mark">
      <svg viewBox="0 0 24 24" aria-hidden="true">
        <rect width="24" height="24" rx="6" fill="var(--accent)" />
        <path
          d="M5 8.5c3.5 0 3.5 7 7 7s3.5-7 7-7M5 15.5c3.5 0 3.5-7 7-7s3.5 7 7 7"
          fill="none"
          stroke="var(--on-accent)"
          stroke-width="2.2"
          stroke-linecap="round"
        />
      </svg>
      weft
    </div>
  )
}

const WORDS = { starting: 'connecting', live: 'live', silent: 'no answer', denied: 'signed out', paused: 'paused', hidden: 'paused' }

function Status({ state }) {
  return (
    <>
      <div class="status" data-is={state.status} role="status">
        <span class="dot" aria-hidden="true" />
        {WORDS[state.status]}
      </div>
      <button type="button" class="button" aria-pressed={String(live.paused)} onClick={() => live.pause(!live.paused)}>
        {live.paused ? 'Resume' : 'Pause'}
      </button>
    </>
  )
}

function Trouble({ state }) {
  const since = state.answered ? `What is shown is from ${clock(state.answered)}, ${ago(state.answered, Date.now())}.` : ''
  if (state.status === 'silent')
    return (
      <div class="alert bad" role="alert">
        <div>
          <p>
            <b>The process does not answer.</b> It has ended, is being stopped in a debugger, or its machine cannot be reached. {since}
          </p>
          <p>Asking again every two seconds.</p>
        </div>
      </div>
    )
  if (state.status === 'denied')
    return (
      <div class="alert bad" role="alert">
        <div>
          <p>
            <b>The process does not know you.</b> It wants its token, which has changed or was not given. {since}
          </p>
          <p>Reload the page, and enter the token as the password; any name will do.</p>
        </div>
      </div>
    )
  return null
}

function Nav({ tab, findings }) {
  const ref = useRef()
  useEffect(() => {
    const button = ref.current.querySelector('[aria-selected=true]')
    const strip = ref.current
    if (strip.scrollWidth > strip.clientWidth) strip.scrollLeft = button.offsetLeft - (strip.clientWidth - button.offsetWidth) / 2
  }, [tab])
  const go = (id) => {
    location.hash = id
  }
  const keys = (e) => {
    const at = NAMES.indexOf(tab)
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: NAMES.length - 1 }[e.key]
    if (to === undefined) return
    e.preventDefault()
    const next = NAMES[(to + NAMES.length) % NAMES.length]
    go(next[0])
    ref.current.querySelector(`#tab-${next[0]}`).focus()
  }
  return (
    <div class="nav" role="tablist" aria-label="Views" aria-orientation={innerWidth > 860 ? 'vertical' : 'horizontal'} ref={ref} onKeyDown={keys}>
      {TABS.map((t, i) =>
        !t ? (
          <div class="group" role="presentation" key={i} />
        ) : (
          <button
            type="button"
            key={t[0]}
            role="tab"
            id={`tab-${t[0]}`}
            aria-selected={String(t === tab)}
            aria-controls="view"
            tabIndex={t === tab ? 0 : -1}
            onClick={() => go(t[0])}
          >
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d={t[3]} />
            </svg>
            {t[1]}
            {t[0] === 'doctor' && findings > 0 && (
              <span class="badge" aria-label={`${findings} findings`}>
                {findings}
              </span>
            )}
          </button>
        ),
      )}
    </div>
  )
}

// A view that cannot show what it was told says so, and the others go on.
class Boundary extends Component {
  componentDidCatch(error) {
    this.setState({ error })
    console.error(error)
  }
  render({ children }, { error }) {
    if (!error) return children
    return (
      <div class="alert bad" role="alert">
        <p>
          <b>This view cannot show what the process tells.</b> It may be of another version than the page: reload. ({error.message})
        </p>
      </div>
    )
  }
}

function App() {
  const state = useLive('info', 'procs', 'heap', 'memory', 'doctor', 'stops')
  const tab = useTab()
  const view = useRef()
  const { info, doctor } = state.docs
  const findings = doctor ? doctor.findings.length : 0
  useEffect(() => {
    document.title = `${info ? info.program : 'weft'} · ${tab[1]}`
  }, [info?.program, tab])
  const toView = useCallback((e) => {
    e.preventDefault()
    view.current.focus()
  }, [])
  useEffect(() => scrollTo(0, 0), [tab])
  const View = tab[2]
  return (
    <TipLayer>
      <a class="skip" href="#view" onClick={toView}>
        Skip to the view
      </a>
      <div class="frame">
        <header class="top">
          <Mark />
          <div class="process">
            {info && (
              <>
                <b>{info.program}</b>
                <span class="pid">pid {info.pid}</span>
                <span class="wide">up {duration(info.up_ms * 1e6)}</span>
                <span class="wide">weft {info.version}</span>
              </>
            )}
          </div>
          <Status state={state} />
        </header>
        <Nav tab={tab} findings={findings} />
        <main class="main" id="view" role="tabpanel" aria-labelledby={`tab-${tab[0]}`} tabIndex={-1} ref={view}>
          <Trouble state={state} />
          <div class={state.status === 'silent' || state.status === 'denied' ? 'old' : ''} key={`${tab[0]}${state.restarts}`}>
            <Boundary>
              <View state={state} />
            </Boundary>
          </div>
          <footer class="foot">
            <a href="pprof/">/debug/pprof</a>
            <a href="../metrics">/metrics</a>
            <a href="page/LICENSES.txt">licences</a>
          </footer>
        </main>
      </div>
    </TipLayer>
  )
}

const root = document.getElementById('app')
root.textContent = ''
render(<App />, root)
