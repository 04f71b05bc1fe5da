import { useSyncExternalStore } from 'react'
import { Problem } from '../api/client'
import { Icon } from './icons'

type Toast = { id: number; text: string; bad: boolean }
const SHOWN_MS = 6_000
let toasts: Toast[] = []
let count = 0
const listeners = new Set<() => void>()

function change(next: Toast[]): void {
  toasts = next
  for (const each of listeners) each()
}

function subscribe(notify: () => void): () => void {
  listeners.add(notify)
  return () => listeners.delete(notify)
}

/** Tells in a corner what an act did. */
export function say(text: string, bad = false): void {
  const id = (count += 1)
  change([...toasts.slice(-3), { id, text, bad }])
  window.setTimeout(() => change(toasts.filter((one) => one.id !== id)), bad ? SHOWN_MS * 2 : SHOWN_MS)
}

export function sayProblem(error: unknown): void {
  if (error instanceof Problem) say(`${error.detail} (${error.code}${error.requestId ? `, request ${error.requestId}` : ''})`, true)
  else say(String(error), true)
}

export function Toasts() {
  const shown = useSyncExternalStore(subscribe, () => toasts)
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map((one) => (
        <p key={one.id} className={one.bad ? 'bad' : ''}>
          <Icon name={one.bad ? 'warn' : 'check'} size={14} />
          <span>{one.text}</span>
        </p>
      ))}
    </div>
  )
}
