// Numbers as people read them: three digits that count, and a unit.

const en = new Intl.NumberFormat('en')
const shorten = (v, digits = 3) => {
  const a = Math.abs(v)
  return v.toFixed(a === 0 || a >= 99.95 ? 0 : a >= 9.995 ? Math.max(0, digits - 2) : digits - 1)
}

export const NONE = '–'
// Integers beyond 2^53 come as text.
export const num = (v) => (v === null || v === undefined ? null : Number(v))

export function count(v) {
  v = num(v)
  return v === null || Number.isNaN(v) ? NONE : en.format(v)
}

// "1 stop", "2 stops".
export function many(n, one, more = `${one}s`) {
  return `${count(n)} ${Number(n) === 1 ? one : more}`
}

export function bytes(v) {
  v = num(v)
  if (v === null || Number.isNaN(v)) return NONE
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']
  let i = 0
  while (Math.abs(v) >= 1023.5 && i < units.length - 1) v /= 1024, i++
  return `${i === 0 ? String(Math.round(v)) : shorten(v)} ${units[i]}`
}

export function duration(ns) {
  ns = num(ns)
  if (ns === null || Number.isNaN(ns)) return NONE
  const a = Math.abs(ns)
  if (a < 1e3) return `${shorten(ns)} ns`
  if (a < 1e6) return `${shorten(ns / 1e3)} µs`
  if (a < 1e9) return `${shorten(ns / 1e6)} ms`
  if (a < 6e10) return `${shorten(ns / 1e9)} s`
  const s = Math.round(a / 1e9)
  const sign = ns < 0 ? '-' : ''
  if (s < 3600) return `${sign}${Math.floor(s / 60)} min ${s % 60} s`
  if (s < 86400) return `${sign}${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${sign}${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

export function rate(v) {
  return v === null || Number.isNaN(v) ? NONE : `${v < 999.5 ? shorten(v) : count(Math.round(v))}/s`
}

export function percent(v) {
  return v === null || Number.isNaN(v) ? NONE : `${shorten(v * 100)} %`
}

export function clock(ms, millis = false) {
  const d = new Date(ms)
  const two = (n) => String(n).padStart(2, '0')
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`
  return millis ? `${text}.${String(d.getMilliseconds()).padStart(3, '0')}` : text
}

export function ago(ms, now) {
  const s = Math.max(0, Math.round((now - ms) / 1000))
  return s < 2 ? 'just now' : `${duration(s * 1e9)} ago`
}

// What a value of a profile means.
export function unit(name) {
  if (name === 'nanoseconds') return duration
  if (name === 'bytes') return bytes
  return count
}

// "handler at /src/server.c:120": what it is called, and where it is.
export function place(text) {
  const at = text ? text.lastIndexOf(' at ') : -1
  if (at < 0) return { name: text || '', where: '', path: '' }
  const path = text.slice(at + 4)
  return { name: text.slice(0, at), where: path.replace(/^.*\//, ''), path }
}
