// Time series, drawn by uPlot.
import uPlot from 'uplot'
import { useEffect, useRef } from 'preact/hooks'
import { bytes, clock } from './format.js'
import { token, useDark, useWidth } from './ui.jsx'

const LEAST = 60 // seconds shown
const TWOS = Array.from({ length: 60 }, (_, i) => 2 ** i) // steps of an axis of bytes

// series: { name, color: token, fill, dash, points, of(sample) }; data: samples with t in milliseconds.
export function Chart({ label, series, data, format, height = 220 }) {
  const [room, width] = useWidth()
  const holder = useRef()
  const plot = useRef(null)
  const dark = useDark()
  const columns = [data.map((d) => d.t / 1000), ...series.map((s) => data.map((d) => s.of(d)))]
  const last = useRef(0) // what is newest stands at the right, from the first minute on
  last.current = columns[0].length ? columns[0][columns[0].length - 1] : Date.now() / 1000

  useEffect(() => {
    if (!width) return
    const faint = token('text-faint'),
      line = token('line')
    const font = `11px ${getComputedStyle(document.body).fontFamily}`
    const axis = { stroke: faint, font, grid: { stroke: line, width: 1 }, ticks: { show: false } }
    plot.current = new uPlot(
      {
        width,
        height,
        padding: [10, 26, 0, 0],
        legend: { live: true, markers: { width: 0 } },
        cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: true, range: (u, min, max) => [Math.min(min ?? last.current, last.current - LEAST), last.current] },
          y: { range: (u, min, max) => [0, max > 0 ? max * 1.1 : 1] },
        },
        axes: [
          { ...axis, values: (u, at) => at.map((v) => clock(v * 1000)), space: 76, size: 26, gap: 6, grid: { show: false } },
          { ...axis, values: (u, at) => at.map((v) => format(v)), size: 70, space: 34, gap: 6, incrs: format === bytes ? TWOS : undefined },
        ],
        series: [
          { label: 'at', value: (u, v) => (v === null || v === undefined ? clock((u.data[0][u.data[0].length - 1] || 0) * 1000) : clock(v * 1000)) },
          ...series.map((s, i) => ({
            label: s.name,
            stroke: token(s.color),
            width: s.points ? 0 : 1.75,
            dash: s.dash,
            spanGaps: true,
            fill: s.fill ? token(s.color) + '22' : undefined,
            points: s.points ? { show: true, size: 5, fill: token(s.color), width: 0 } : { show: false },
            paths: s.steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
            value: (u, v) => format(v ?? [...u.data[i + 1]].reverse().find((x) => x !== null && x !== undefined) ?? null),
          })),
        ],
      },
      columns,
      holder.current,
    )
    // The key's marks come as inline styles of a border: the same colours, by hand.
    holder.current.querySelectorAll('.u-legend .u-marker').forEach((m, i) => (m.style.background = i ? token(series[i - 1].color) : 'transparent'))
    return () => plot.current.destroy()
  }, [dark, series.map((s) => s.name).join(), width === 0])

  useEffect(() => {
    if (plot.current && width) plot.current.setSize({ width, height })
  }, [width, height])
  useEffect(() => {
    if (plot.current && width) plot.current.setData(columns)
  })

  const newest = data[data.length - 1]
  const told = newest ? series.map((s) => `${s.name} ${format(s.of(newest) ?? null)}`).join(', ') : 'nothing yet'
  return (
    <figure class="chart" ref={room}>
      <div ref={holder} role="img" aria-label={`${label}; at the end: ${told}`} style={{ minHeight: `${height + 32}px` }} />
    </figure>
  )
}
