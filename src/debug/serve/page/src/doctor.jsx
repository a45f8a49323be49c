// Findings of the doctor, and what it looks for.
import { ago, count } from './format.js'
import { Empty, Head, Of, Panel, Table } from './ui.jsx'

// As include/weft/debug.h says it.
const LOOKS_FOR = {
  W01: "a finalizer's context keeps its own object alive",
  W02: 'a finalizer is the way to close what is scarce',
  W03: 'fibers end locked to their threads, which end with them',
  W04: 'weft_gc is called again and again',
  W05: 'an object was collected while its memory was in use',
  W06: 'statistics that stop the world are polled',
  W07: 'a CPU profile is not stopped',
  W08: 'leaks are told from the number of fibers, or by a baseline from before the runtime runs',
  W09: 'a second trace was refused, and that was ignored',
  W10: 'recording waits or contentions takes much of the time',
  W11: 'a dump was cut by a small buffer',
  W12: 'more processors than the quota pays for',
  W13: 'memory is expected to go back to the system by a collection',
  W14: 'profiles were to be served to everybody',
  W15: 'a fiber held a processor for too long',
  W16: 'a stop of the world took too long',
  W17: 'a fiber waited while it held a lock that must not be held then',
  W18: 'the address of a thread-local variable was kept while the fiber changed its thread',
}

const file = (path) => path.replace(/^.*\//, '')
const frame = (f) => (f.file ? `${f.function} at ${file(f.file)}:${f.line}` : f.function)

function Stack({ title, of }) {
  if (of.length === 0) return null
  return (
    <details>
      <summary>{title}</summary>
      <pre>{of.map(frame).join('\n')}</pre>
    </details>
  )
}

function Finding({ f, now }) {
  return (
    <li class="finding" data-finding={f.code}>
      <div class="code">{f.code}</div>
      <div class="about-it">
        <div class="what">{f.what}</div>
        {f.cure && <div class="cure">{f.cure}</div>}
        {f.stack.length > 0 && <div class="where fn">{frame(f.stack.find((x) => x.file) || f.stack[0])}</div>}
        <Stack title="Where it happened" of={f.stack} />
        <Stack title="Where it was made" of={f.made} />
      </div>
      <div class="times">
        <b>{count(f.count)}</b> {Number(f.count) === 1 ? 'time' : 'times'}
        <div>last {ago(f.last_ns / 1e6, now / 1e6)}</div>
      </div>
    </li>
  )
}

export function Doctor({ state }) {
  const { doctor } = state.docs
  const off = doctor && Object.values(doctor.modes).every((m) => m === 'off')
  return (
    <>
      <Head title="Doctor">
        Misuses of the runtime, found while the program runs: what happened, where, and what cures it. Each distinct one is told once, and counted.
      </Head>
      <div class="grid">
        <Panel title="Findings" id="doctor">
          <Of doc={doctor} refused={state.refused.doctor}>
            {(doc) =>
              doc.findings.length > 0 ? (
                <ol>
                  {doc.findings.map((f, i) => (
                    <Finding f={f} now={doc.now_ns} key={`${f.code} ${f.first_ns} ${i}`} />
                  ))}
                </ol>
              ) : off ? (
                <Empty title="The doctor is off.">
                  It begins with the program: start that with <code>WEFT_DEBUG=doctor=report</code>, or without a setting for the doctor.
                </Empty>
              ) : (
                <Empty title="Nothing found.">None of the misuses below has been seen since the start.</Empty>
              )
            }
          </Of>
          {doctor?.lost > 0 && <p class="small soft">{count(doctor.lost)} more were seen that there was no room to describe.</p>}
        </Panel>
        <Panel
          title="What it looks for"
          id="looks-for"
          about="WEFT_DEBUG=doctor=MODE sets the mode of all, w04=MODE that of one: off, count, report, or abort."
        >
          {doctor && (
            <Table
              label="What the doctor looks for"
              limit={30}
              rows={Object.keys(LOOKS_FOR)}
              keyOf={(c) => c}
              columns={[
                { name: 'Code', of: (c) => <b>{c}</b> },
                { name: 'Misuse', fill: true, of: (c) => LOOKS_FOR[c] },
                {
                  name: 'Mode',
                  of: (c) => <span class={`chip ${doctor.modes[c.toLowerCase()] === 'abort' ? 'warn' : ''}`}>{doctor.modes[c.toLowerCase()]}</span>,
                },
                {
                  name: 'Seen',
                  n: true,
                  of: (c) => (
                    <span data-seen={c}>
                      {Number(doctor.counts[c.toLowerCase()]) > 0 ? (
                        <b class="bad">{count(doctor.counts[c.toLowerCase()])}</b>
                      ) : (
                        <span class="faint">0</span>
                      )}
                    </span>
                  ),
                },
              ]}
            />
          )}
        </Panel>
      </div>
    </>
  )
}
