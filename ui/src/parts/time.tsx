import { duration } from '../lib/format'
import { absolute, ageSeconds, clockOrDay, now, relative, useSecond } from '../lib/time'

/** Relative, ticking; absolute in local time and UTC on hover and for screen readers. `exact`: local time beside it. */
export function Time({ at, none = '–', exact }: { at: string | null | undefined; none?: string; exact?: boolean }) {
  useSecond()
  if (!at) return <span className="faint">{none}</span>
  return (
    <time className="num" dateTime={at} title={absolute(at)}>
      {relative(at)}
      {exact && <span className="exact">{clockOrDay(at)}</span>}
    </time>
  )
}

/** How long ago, without the word. */
export function Age({ since, warnS, badS }: { since: string | null | undefined; warnS?: number; badS?: number }) {
  useSecond()
  if (!since) return <span className="faint">–</span>
  const age = ageSeconds(since)
  const tone = badS && age >= badS ? 'bad' : warnS && age >= warnS ? 'warn' : ''
  return (
    <time className={`num ${tone}`} dateTime={since} title={absolute(since)}>
      {duration(Math.max(1, Math.floor(age)))}
    </time>
  )
}

export function Countdown({ until }: { until: string }) {
  useSecond()
  return (
    <time className="num" dateTime={until} title={absolute(until)}>
      {duration(Math.max(0, Math.ceil((Date.parse(until) - now()) / 1000)))}
    </time>
  )
}
