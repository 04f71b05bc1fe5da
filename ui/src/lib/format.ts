// Numbers and durations as people read them.
const WHOLE = new Intl.NumberFormat('en')
const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

export function whole(value: number | null | undefined): string {
  return value == null ? '–' : WHOLE.format(value)
}

/** 1,234 in full, 12.3K beyond ten thousand. */
export function compact(value: number | null | undefined): string {
  if (value == null) return '–'
  return Math.abs(value) < 10_000 ? WHOLE.format(Math.round(value * 100) / 100) : COMPACT.format(value)
}

const UNITS: [string, number][] = [
  ['d', 86_400],
  ['h', 3_600],
  ['m', 60],
  ['s', 1],
]

/** The two largest units: `2d 3h`, `1m 04s`, `4.2 s`, `12 ms`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return '–'
  const s = Math.max(0, seconds)
  if (s < 0.0005) return '0 ms'
  if (s < 0.01) return `${(s * 1000).toFixed(1)} ms`
  if (s < 1) return `${Math.round(s * 1000)} ms`
  if (s < 10) return `${s.toFixed(1)} s`
  if (s < 60) return `${Math.floor(s)} s`
  const first = UNITS.findIndex(([, size]) => s >= size)
  const [name, size] = UNITS[first] ?? UNITS[3]!
  const [nextName, nextSize] = UNITS[first + 1] ?? ['', 1]
  const rest = Math.floor((s % size) / nextSize)
  const head = `${Math.floor(s / size)}${name}`
  return rest && nextName ? `${head} ${String(rest).padStart(nextName === 'h' ? 1 : 2, '0')}${nextName}` : head
}

export function milliseconds(ms: number | null | undefined): string {
  return ms == null ? '–' : duration(ms / 1000)
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return '–'
  let size = value
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (size < 1024 || unit === 'TiB') return `${unit === 'B' || size >= 100 ? Math.round(size) : size.toFixed(1)} ${unit}`
    size /= 1024
  }
  return ''
}

export function percent(value: number | null | undefined): string {
  if (value == null) return '–'
  // A tick at 1.5 must not read 2.
  return `${value > 0 && value < 10 && value % 1 !== 0 ? value.toFixed(1) : Math.round(value)} %`
}
