// Profiles taken on the spot.
import { useEffect, useRef, useState } from 'preact/hooks'
import { ask, Refusal } from './api.js'
import { bytes, count, duration, percent } from './format.js'
import { readProfile } from './pprof.js'
import { Flame } from './flame.jsx'
import { Empty, Head, Panel, Segments, useLive } from './ui.jsx'

// path; window: takes `seconds`, a while during which is measured; about: what it shows; value: which of its values is shown first.
const KINDS = {
  cpu: {
    name: 'CPU',
    path: 'pprof/profile',
    window: true,
    value: 'cpu',
    about: 'Where processor time goes: stacks of what runs, a hundred times per second of it.',
  },
  wall: {
    name: 'Wall clock',
    path: 'fgprof',
    window: true,
    value: 'wall',
    about: 'Where the time of fibers goes, whether they run or wait. Its sum is fibers times seconds.',
  },
  heap: {
    name: 'Heap in use',
    path: 'pprof/heap',
    value: 'inuse_space',
    about: 'What is alive, as of the last collection, by who allocated it. From samples.',
  },
  allocs: {
    name: 'Allocated',
    path: 'pprof/allocs',
    value: 'alloc_space',
    about: 'All that was allocated since the start, by who did it. From samples: what it shows most of is what collections are for.',
  },
  block: {
    name: 'Waits',
    path: 'pprof/block',
    value: 'delay',
    about: 'Where fibers waited, on channels, locks and the like, since recording was switched on.',
  },
  mutex: { name: 'Locks', path: 'pprof/mutex', value: 'delay', about: 'Who made others wait by holding a lock, since recording was switched on.' },
  goroutine: { name: 'Fibers', path: 'pprof/goroutine', value: 'goroutine', about: 'All fibers, as they are now, by stack.' },
  goroutineleak: {
    name: 'Leaked fibers',
    path: 'pprof/goroutineleak',
    value: 'goroutineleak',
    about: 'Fibers that wait for what nobody can ever do. To find them takes a collection.',
  },
  threadcreate: { name: 'Threads', path: 'pprof/threadcreate', value: 'threadcreate', about: "The runtime's threads, by who made it make them." },
}
const VALUES = {
  cpu: 'time',
  samples: 'samples',
  inuse_space: 'bytes in use',
  inuse_objects: 'objects in use',
  alloc_space: 'bytes allocated',
  alloc_objects: 'objects allocated',
  delay: 'time',
  contentions: 'how often',
  wall: 'time',
  goroutine: 'fibers',
  goroutineleak: 'fibers',
  threadcreate: 'threads',
}

// Why a profile is, or would be, empty.
function off(kind, rates, empty) {
  if (kind === 'block' && (rates.block_ns === 0 || empty))
    return (
      <>
        Recording of waits is off, or there were none. The program switches it on: <code>weft_set_block_profile_budget(1)</code>, which costs one
        percent of the processor time at most.
      </>
    )
  if (kind === 'mutex' && rates.mutex_fraction === 0)
    return (
      <>
        Recording of contentions is off. The program switches it on: <code>weft_set_mutex_profile_budget(1)</code>, which costs one percent of the
        processor time at most.
      </>
    )
  if ((kind === 'heap' || kind === 'allocs') && rates.heap_bytes === 0)
    return (
      <>
        Sampling of allocations is off. The program switches it on: <code>weft_set_mem_profile_rate(524288)</code>.
      </>
    )
  return null
}

// Measures for a while, with its progress, or asks; either can be given up.
export function useTaken() {
  const [job, setJob] = useState(null)
  const [error, setError] = useState(null)
  const [now, setNow] = useState(0)
  const running = useRef(null)
  useEffect(() => () => running.current?.abort(), [])
  useEffect(() => {
    if (!job) return
    const timer = setInterval(() => setNow(Date.now()), 200)
    return () => clearInterval(timer)
  }, [job])
  const start = async (path, seconds, then) => {
    running.current?.abort()
    const abort = (running.current = new AbortController())
    setError(null)
    setNow(Date.now())
    setJob({ began: Date.now(), seconds })
    try {
      const answer = await ask(path, { signal: abort.signal })
      await then(new Uint8Array(await answer.arrayBuffer()))
    } catch (e) {
      if (e.name !== 'AbortError')
        setError(e instanceof Refusal ? e : new Error(e instanceof TypeError ? 'The process did not answer, or the answer was cut off.' : e.message))
    }
    if (running.current === abort) {
      running.current = null
      setJob(null)
    }
  }
  const stop = () => running.current?.abort()
  return {
    start,
    stop,
    error,
    job,
    done: job && job.seconds ? Math.min(1, (now - job.began) / 1000 / job.seconds) : null,
    passed: job ? (now - job.began) * 1e6 : 0,
  }
}

export function Taking({ taken, what }) {
  if (!taken.job) return null
  return (
    <div class="empty" role="status">
      <b>{what}</b>
      {taken.done !== null && (
        <div
          class="progress"
          role="progressbar"
          aria-label="progress"
          aria-valuemin="0"
          aria-valuemax="100"
          aria-valuenow={Math.round(taken.done * 100)}
        >
          <i style={{ width: `${taken.done * 100}%` }} />
        </div>
      )}
      <span>
        {duration(taken.passed)}
        {taken.job.seconds ? ` of ${taken.job.seconds} s` : ''}
      </span>
      <button type="button" class="button" onClick={taken.stop}>
        Cancel
      </button>
    </div>
  )
}

export function Trouble({ error }) {
  if (!error) return null
  return (
    <div class="alert warn" role="alert" style={{ marginBottom: '12px' }}>
      <p>
        {error.status === 409 ? <b>Somebody else is measuring. </b> : error.status ? '' : <b>That did not work. </b>}
        {error.message}
      </p>
    </div>
  )
}

export function save(name, data) {
  const a = document.createElement('a')
  a.href = URL.createObjectURL(new Blob([data], { type: 'application/octet-stream' }))
  a.download = name
  a.click()
  setTimeout(() => URL.revokeObjectURL(a.href), 10000)
}

export function Profiles() {
  const state = useLive('profiles')
  const { profiles, info } = state.docs
  const [kind, setKind] = useState('cpu')
  const [seconds, setSeconds] = useState(5)
  const [got, setGot] = useState(null)
  const [index, setIndex] = useState(0)
  const [by, setBy] = useState('')
  const taken = useTaken()
  const own = profiles ? profiles.profiles.filter((p) => p.own) : []
  const k = KINDS[kind] || {
    name: kind,
    path: `pprof/${encodeURIComponent(kind)}`,
    value: kind,
    about: "A profile of the program's own: what it holds now, by who added it.",
  }
  const why = profiles && off(kind, profiles.rates)
  const take = () =>
    taken.start(k.path + (k.window ? `?seconds=${seconds}` : ''), k.window ? seconds : 0, async (data) => {
      const profile = await readProfile(data)
      const first = profile.types.findIndex((t) => t.type === k.value)
      setIndex(first >= 0 ? first : profile.types.length - 1)
      setBy('')
      setGot({ kind, name: k.name, profile, data, at: Date.now() })
    })
  const labels = got ? [...new Set(got.profile.samples.flatMap((s) => s.labels.map((l) => l.key)))].filter((l) => l !== 'bytes') : []
  const sum = got ? got.profile.samples.reduce((n, s) => n + (s.values[index] || 0), 0) : 0
  return (
    <>
      <Head title="Profiles">
        Taken now, from this process. What is measured for a while costs the program less than a percent meanwhile; one is made at a time.
      </Head>
      <div class="grid">
        <Panel title="Take a profile" id="take">
          <div class="flame-bar">
            <label class="field">
              Profile{' '}
              <select value={kind} onChange={(e) => setKind(e.currentTarget.value)}>
                {Object.entries(KINDS).map(([id, x]) => (
                  <option value={id} key={id}>
                    {x.name}
                  </option>
                ))}
                {own.map((p) => (
                  <option value={p.name} key={p.name}>
                    {p.name} (the program's own)
                  </option>
                ))}
              </select>
            </label>
            {k.window && (
              <span class="field">
                for{' '}
                <Segments
                  label="Seconds"
                  value={seconds}
                  onChange={setSeconds}
                  options={[
                    [2, '2 s'],
                    [5, '5 s'],
                    [10, '10 s'],
                    [30, '30 s'],
                  ]}
                />
              </span>
            )}
            <button type="button" class="button main-action" disabled={!!taken.job} onClick={take} data-take>
              {k.window ? 'Measure' : 'Take'}
            </button>
          </div>
          <p class="soft">{k.about}</p>
          {why && (
            <p class="soft" style={{ marginTop: '6px' }}>
              {why}
            </p>
          )}
        </Panel>
        <Panel
          title={got ? got.name : 'Flame graph'}
          id="flame"
          actions={
            got &&
            !taken.job && (
              <>
                {got.profile.types.length > 1 && (
                  <Segments
                    label="Value"
                    value={index}
                    onChange={setIndex}
                    options={got.profile.types.map((t, i) => [i, VALUES[t.type] || t.type])}
                  />
                )}
                {labels.length > 0 && (
                  <label class="field">
                    by{' '}
                    <select value={by} onChange={(e) => setBy(e.currentTarget.value)}>
                      <option value="">function</option>
                      {labels.map((l) => (
                        <option value={l} key={l}>
                          label {l}
                        </option>
                      ))}
                    </select>
                  </label>
                )}
                <button type="button" class="button" onClick={() => save(`${info?.program || 'weft'}-${got.kind}.pb.gz`, got.data)}>
                  Save
                </button>
              </>
            )
          }
        >
          <Trouble error={taken.error} />
          <Taking taken={taken} what={k.window ? 'Measuring…' : 'Asking…'} />
          {!taken.job &&
            (!got ? (
              <Empty title="Nothing measured yet.">
                Choose what to look at, and press the button: the profile is drawn here as a flame graph, and can be saved for{' '}
                <code>go tool pprof</code>.
              </Empty>
            ) : sum === 0 && got.profile.samples.every((s) => !s.values[index]) ? (
              <Empty title="The profile is empty.">
                {off(got.kind, profiles?.rates || {}, true) ||
                  (got.kind === 'cpu'
                    ? 'Nothing of the process ran meanwhile: for where fibers wait, take the wall-clock profile.'
                    : 'There is nothing of that kind.')}
              </Empty>
            ) : (
              <>
                <p class="small soft" style={{ marginBottom: '8px' }}>
                  {count(got.profile.samples.length)} stacks{got.profile.durationNs > 0 && `, ${duration(got.profile.durationNs)} measured`},{' '}
                  {bytes(got.data.length)} of data. Each bar is a function, under it what it calls; its width is its part of all.
                </p>
                <Flame profile={got.profile} index={index} by={by} />
              </>
            ))}
        </Panel>
      </div>
    </>
  )
}
