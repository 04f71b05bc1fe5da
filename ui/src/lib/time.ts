// Instants: relative to the server's clock, absolute in local time and UTC.
import { useSyncExternalStore } from 'react'
import { duration } from './format'

let offsetMs = 0

/** The server says what time it is with every answer; this browser's clock may be off. */
export function learnServerTime(header: string | null): void {
  const at = header ? Date.parse(header) : NaN
  // The header has whole seconds. A difference of less is no difference.
  if (Number.isFinite(at) && Math.abs(at - Date.now() - offsetMs) > 2_000) offsetMs = at - Date.now()
}

export function now(): number {
  return Date.now() + offsetMs
}

const listeners = new Set<() => void>()
let second = 0
let timer = 0

function subscribe(notify: () => void): () => void {
  listeners.add(notify)
  if (!timer) {
    timer = window.setInterval(() => {
      if (document.hidden) return
      second += 1
      for (const each of listeners) each()
    }, 1_000)
  }
  return () => {
    listeners.delete(notify)
    if (!listeners.size) {
      window.clearInterval(timer)
      timer = 0
    }
  }
}

/** Renders anew each second, all users in the same moment; none while the tab is hidden. */
export function useSecond(): number {
  return useSyncExternalStore(subscribe, () => second)
}

/** `3m 04s ago`, `in 12 s`, `now`. */
export function relative(iso: string): string {
  const seconds = (Date.parse(iso) - now()) / 1000
  if (Math.abs(seconds) < 1) return 'now'
  const text = Math.abs(seconds) < 10 ? `${Math.round(Math.abs(seconds))} s` : duration(Math.abs(seconds))
  return seconds > 0 ? `in ${text}` : `${text} ago`
}

export function ageSeconds(iso: string): number {
  return Math.max(0, (now() - Date.parse(iso)) / 1000)
}

const pad = (n: number, width = 2) => String(n).padStart(width, '0')

/** `19:05:07`, with the day before it unless that is today. */
export function clockOrDay(iso: string): string {
  const at = new Date(iso)
  return at.toDateString() === new Date(now()).toDateString() ? clock(at) : local(at)
}

/** `Europe/Berlin, UTC+1`: what local times are told in. */
export function zone(): string {
  const minutes = -new Date().getTimezoneOffset()
  const hours = Math.trunc(Math.abs(minutes) / 60)
  const rest = Math.abs(minutes) % 60
  const offset = minutes ? `UTC${minutes > 0 ? '+' : '−'}${hours}${rest ? `:${pad(rest)}` : ''}` : 'UTC'
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone
  return !name || name === 'UTC' ? offset : `${name}, ${offset}`
}

/** `2026-11-24 19:05:07` in the browser's zone. */
export function local(at: Date): string {
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(at)}`
}

export function clock(at: Date, withSeconds = true): string {
  const text = `${pad(at.getHours())}:${pad(at.getMinutes())}`
  return withSeconds ? `${text}:${pad(at.getSeconds())}` : text
}

/** Both readings, for a hover. */
export function absolute(iso: string): string {
  const at = new Date(iso)
  return `${local(at)} local · ${at.toISOString().replace('T', ' ').replace('.000Z', 'Z')} UTC`.replace('Z UTC', ' UTC')
}
