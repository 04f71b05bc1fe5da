// Dark, light, or as the system says. Kept in the browser.
import { useSyncExternalStore } from 'react'

export type Theme = 'system' | 'light' | 'dark'
const KEY = 'forge-jobs.theme'
const dark = window.matchMedia('(prefers-color-scheme: dark)')
const listeners = new Set<() => void>()

export function theme(): Theme {
  const kept = localStorage.getItem(KEY)
  return kept === 'light' || kept === 'dark' ? kept : 'system'
}

export function shownTheme(): 'light' | 'dark' {
  const chosen = theme()
  return chosen === 'system' ? (dark.matches ? 'dark' : 'light') : chosen
}

function apply(): void {
  document.documentElement.dataset.theme = shownTheme()
  for (const each of listeners) each()
}

export function setTheme(chosen: Theme): void {
  if (chosen === 'system') localStorage.removeItem(KEY)
  else localStorage.setItem(KEY, chosen)
  apply()
}

export function startTheme(): void {
  dark.addEventListener('change', apply)
  apply()
}

function subscribe(notify: () => void): () => void {
  listeners.add(notify)
  return () => listeners.delete(notify)
}

export const useTheme = () => useSyncExternalStore(subscribe, theme)
export const useShownTheme = () => useSyncExternalStore(subscribe, shownTheme)
