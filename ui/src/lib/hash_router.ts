// The address of a page is the part behind `#`: it works below any path prefix and needs nothing of the server.
import { useMemo, useSyncExternalStore } from 'react'

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
  return [params, changeParams]
}

function changeParams(wanted: Change, push = false): void {
  const [path, query] = read().split('?')
  const next = new URLSearchParams(query)
  for (const [name, value] of Object.entries(wanted)) {
    next.delete(name)
    for (const one of Array.isArray(value) ? value : [value]) if (one) next.append(name, one)
  }
  const text = next.toString()
  navigate(`${path}${text ? `?${text}` : ''}`, { replace: !push })
}

/** The job in the drawer beside the page, as the address has it. A page of a job has none. */
export function useOpenJob(): string | null {
  const [path, query] = useAddress().split('?')
  return path!.startsWith('/jobs/') ? null : new URLSearchParams(query).get('job')
}

/** Shows a job beside the page, or no more. Opening is a step for Back; going on to another one is not. */
export function openJob(id: string | null): void {
  const open = new URLSearchParams(read().split('?')[1]).has('job')
  changeParams({ job: id }, id !== null && !open)
}

/** For a link to a job: a plain click opens it beside the page, all others do what a browser does. */
export function peekAt(id: string) {
  return (event: React.MouseEvent) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || read().startsWith('/jobs/')) return
    event.preventDefault()
    openJob(id)
  }
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
