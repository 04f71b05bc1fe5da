// The window of time that charts show, and the size of its buckets.
import { useMemo } from 'react'
import { useParams } from './hash_router'
import { now, useSecond } from './time'

export const PRESETS = { '5m': 300, '30m': 1_800, '1h': 3_600, '3h': 10_800, '6h': 21_600, '24h': 86_400, '7d': 604_800 } as const
export type Preset = keyof typeof PRESETS
const STEPS_S = [1, 5, 15, 30, 60, 300, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400]
const MOST_BUCKETS = 100

/** The smallest step that cuts the window into at most 100, not below `leastS`. */
export function bucketFor(spanS: number, leastS: number): number {
  return STEPS_S.find((step) => step >= leastS && spanS / step <= MOST_BUCKETS) ?? STEPS_S.at(-1)!
}

export type Window = { fromS: number; toS: number; bucketS: number; preset: Preset | null }

/** The window in the URL: a preset that moves on with time, or what was dragged. Both ends are whole buckets. */
export function useWindow(leastBucketS = 60): [Window, (next: { preset?: Preset; fromS?: number; toS?: number }) => void] {
  const [params, change] = useParams()
  const tick = useSecond()
  const fromS = Number(params.get('from'))
  const toS = Number(params.get('to'))
  const named = params.get('range') as Preset | null
  const preset = fromS && toS ? null : named && named in PRESETS ? named : '1h'
  const span = preset ? PRESETS[preset] : toS - fromS
  const bucketS = bucketFor(span, leastBucketS)
  // A preset moves on by whole buckets, at least every 15 s.
  const step = Math.min(bucketS, 15)
  const end = preset ? Math.ceil(now() / 1000 / step) * step : toS
  void tick
  const window = useMemo<Window>(() => {
    const last = Math.ceil(end / bucketS) * bucketS
    return { fromS: Math.floor((end - span) / bucketS) * bucketS, toS: last, bucketS, preset }
  }, [end, span, bucketS, preset])
  return [
    window,
    (next) =>
      next.preset
        ? change({ range: next.preset === '1h' ? null : next.preset, from: null, to: null })
        : change({ from: String(Math.floor(next.fromS!)), to: String(Math.ceil(next.toS!)) }, true),
  ]
}
