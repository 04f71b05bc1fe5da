// Changes as the server tells of them. An event only says what to read again; nothing on a page is overwritten by it.
import type { QueryClient } from '@tanstack/react-query'
import { useSyncExternalStore } from 'react'
import { apiUrl } from './client'

const CALM_MS = 1_000 // a page is read again at most so often, however much happens
const RETRY_MS = 10_000
export const POLL_MS = 5_000 // without the stream
const SURE_MS = 20_000 // with it, in case something was missed

// Which reads each event makes stale, by the first part of their keys.
const READS: Record<string, string[]> = {
  job: ['jobs', 'job', 'overview', 'queues', 'counts', 'groups', 'kinds'],
  queue: ['queues', 'overview'],
  worker: ['workers', 'overview', 'kinds'],
  schedule: ['schedules', 'ticks'],
  limit: ['limits'],
  banner: ['overview'],
}

export type LiveState = 'connecting' | 'live' | 'polling'
let state: LiveState = 'connecting'
const listeners = new Set<() => void>()

function become(next: LiveState): void {
  if (state === next) return
  state = next
  for (const each of listeners) each()
}

function subscribe(notify: () => void): () => void {
  listeners.add(notify)
  return () => listeners.delete(notify)
}

export const useLiveState = () => useSyncExternalStore(subscribe, () => state)

/** How often a shown page asks by itself. */
export function interval(): number {
  return state === 'live' ? SURE_MS : POLL_MS
}

/** Keeps the stream open while the tab is shown. The answer ends it. */
export function startLive(client: QueryClient): () => void {
  let source: EventSource | null = null
  let retry = 0
  const due = new Set<string>()
  let calm = 0

  function flush(): void {
    calm = 0
    const keys = [...due]
    due.clear()
    for (const key of keys) void client.invalidateQueries({ queryKey: [key] })
  }

  function mark(keys: string[]): void {
    for (const key of keys) due.add(key)
    if (!calm) calm = window.setTimeout(flush, CALM_MS)
  }

  function open(): void {
    window.clearTimeout(retry)
    if (source || document.hidden) return
    source = new EventSource(apiUrl('events'), { withCredentials: true })
    source.onopen = () => {
      const away = state === 'polling'
      become('live')
      if (away) void client.invalidateQueries()
    }
    source.onerror = () => {
      // The browser tries again by itself unless the answer was an error.
      if (state === 'live') void client.invalidateQueries() // is the server away, or only the stream?
      become('polling')
      if (source?.readyState === EventSource.CLOSED) {
        close()
        retry = window.setTimeout(open, RETRY_MS)
      }
    }
    for (const [name, keys] of Object.entries(READS)) source.addEventListener(name, () => mark(keys))
    source.addEventListener('resync', () => void client.invalidateQueries())
  }

  function close(): void {
    source?.close()
    source = null
  }

  function onVisible(): void {
    if (document.hidden) close()
    else {
      open()
      void client.invalidateQueries()
    }
  }

  document.addEventListener('visibilitychange', onVisible)
  open()
  return () => {
    document.removeEventListener('visibilitychange', onVisible)
    window.clearTimeout(retry)
    window.clearTimeout(calm)
    close()
    become('connecting')
  }
}
