// The address of a page is the part behind `#`: it works below any path prefix and needs nothing of the server.
import { useCallback, useMemo, useSyncExternalStore } from 'react'

function read(): string {
  return window.location.hash.slice(1) || '/'
}

function subscribe(notify: () => void): () => void {
  window.addEventListener('hashchange', notify)
  return () => window.removeEventListener('hashchange', notify)
}

/** Path and query of the page, as `/jobs?status=dead`. */
function useAddress(): string {
  return useSyncExternalStore(subscribe, read)
}

export function navigate(to: string, options?: { replace?: boolean }): void {
  if (options?.replace) {
    window.history.replaceState(window.history.state, '', `#${to}`)
    window.dispatchEvent(new HashChangeEvent('hashchange'))
  } else {
    window.location.hash = to
  }
}

/** For wouter: the path alone. */
export function useHashPath(): [string, typeof navigate] {
  return [useAddress().split('?')[0] || '/', navigate]
}
useHashPath.hrefs = (href: string) => `#${href}`

export function useHashSearch(): string {
  return useAddress().split('?')[1] ?? ''
}

type Change = Record<string, string | string[] | null>

/** The query of the page, and how to change some of it. Null or '' removes; `push` makes a step for Back. */
export function useParams(): [URLSearchParams, (change: Change, push?: boolean) => void] {
  const search = useHashSearch()
  const params = useMemo(() => new URLSearchParams(search), [search])
  const change = useCallback((wanted: Change, push = false) => {
    const [path, query] = read().split('?')
    const next = new URLSearchParams(query)
    for (const [name, value] of Object.entries(wanted)) {
      next.delete(name)
      for (const one of Array.isArray(value) ? value : [value]) if (one) next.append(name, one)
    }
    const text = next.toString()
    navigate(`${path}${text ? `?${text}` : ''}`, { replace: !push })
  }, [])
  return [params, change]
}

/** A link to `path` with what is given of `query`. */
export function address(path: string, query: Record<string, string | string[] | null | undefined> = {}): string {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) params.append(name, one)
  }
  const text = params.toString()
  return text ? `${path}?${text}` : path
}
