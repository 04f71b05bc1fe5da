// Keys that act wherever the page has no text field in focus.
import { useEffect, useRef } from 'react'

type Act = (event: KeyboardEvent) => void
export type Keys = Record<string, Act>

const sets: { current: Keys }[] = []
let lead = ''
let leadTimer = 0
const LEAD_MS = 1_200 // how long `g` waits for its letter

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
}

document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.isComposing) return
  const chord = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k'
  if (!chord && (event.ctrlKey || event.metaKey || event.altKey)) return
  if (!chord && event.key !== 'Escape' && typing(event.target)) return
  // A dialog in front takes the keys itself; Escape closes it natively.
  if (!chord && document.querySelector('dialog[open]')) return
  const name = chord ? 'Ctrl-K' : lead ? `${lead} ${event.key}` : event.key
  window.clearTimeout(leadTimer)
  const wasLead = lead
  lead = ''
  const act = actOf(name)
  if (act) {
    event.preventDefault()
    act(event)
    return
  }
  if (event.key === 'g' && !wasLead) {
    lead = 'g'
    leadTimer = window.setTimeout(() => (lead = ''), LEAD_MS)
  }
})

function actOf(name: string): Act | undefined {
  return sets.findLast((one) => one.current[name])?.current[name]
}

/** What a key does, for a button that does the same. */
export function press(name: string): void {
  actOf(name)?.(new KeyboardEvent('keydown', { key: name }))
}

/** These keys act while the component is shown; the newest set goes first. */
export function useKeys(keys: Keys): void {
  const held = useRef(keys)
  held.current = keys
  useEffect(() => {
    sets.push(held)
    return () => void sets.splice(sets.indexOf(held), 1)
  }, [])
}
