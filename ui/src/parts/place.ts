// Where in its list the job in the drawer is: told by the table that has it, read by the drawer.
import { useSyncExternalStore } from 'react'

export type Place = { at: number; of: number; before: string | null; after: string | null }

let place: Place | null = null
const listeners = new Set<() => void>()

function become(next: Place | null): void {
  place = next
  for (const each of listeners) each()
}

function subscribe(notify: () => void): () => void {
  listeners.add(notify)
  return () => listeners.delete(notify)
}

/** The answer takes it back. */
export function tellPlace(next: Place): () => void {
  become(next)
  return () => {
    if (place === next) become(null)
  }
}

export const usePlace = () => useSyncExternalStore(subscribe, () => place)
