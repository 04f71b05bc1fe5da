// Series from the server as columns for charts: one time axis, gaps as null, counters as 0.
import type { Window } from '../lib/range'
import { now } from '../lib/time'
import { useRead } from './queries'
import type { Line, Point, SeriesAnswer } from './types'

export function useSeries(what: 'queue' | 'resources' | 'store', window: Window, query: { queue?: string; host_id?: string } = {}) {
  return useRead<SeriesAnswer>(['series', what], `series/${what}`, {
    from: new Date(window.fromS * 1000).toISOString(),
    to: new Date(window.toS * 1000).toISOString(),
    bucket_s: window.bucketS,
    ...query,
  })
}

export function timesOf(window: Window): number[] {
  const count = Math.max(0, Math.round((window.toS - window.fromS) / window.bucketS))
  return Array.from({ length: count }, (_, i) => window.fromS + i * window.bucketS)
}

export type Part = 'count' | 'mean' | 'p50' | 'p95' | 'p99' | 'max'

/** One value for each bucket. `none`: what a bucket without values stands for. */
export function valuesOf(lines: Line[], metric: string, part: Part, times: number[], none: number | null = null, hostId?: string): (number | null)[] {
  const points = new Map<number, Point>()
  for (const line of lines) {
    if (line.metric !== metric || (hostId !== undefined && line.host_id !== hostId)) continue
    for (const point of line.points) points.set(Date.parse(point.at) / 1000, point)
  }
  return times.map((time) => points.get(time)?.[part] ?? none)
}

const COUNTED_AFTER_S = 120 // a minute is counted once it is over, by a loop that runs each minute

/** Counts per second, so that windows of different lengths compare. A line ends where nothing is counted yet. */
export function ratesOf(lines: Line[], metric: string, times: number[], bucketS: number): (number | null)[] {
  const minute = Math.floor(now() / 60_000) * 60
  return valuesOf(lines, metric, 'count', times).map((count, i) => {
    const start = times[i]!
    const passedS = Math.min(bucketS, minute - start)
    if (passedS <= 0 || (count === null && start > minute - COUNTED_AFTER_S)) return null
    return (count ?? 0) / passedS
  })
}
