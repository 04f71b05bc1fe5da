// One way to ask the server. Every failure is a `Problem` that a page can show.
import { learnServerTime } from '../lib/time'

// The folder above this script's, wherever the page is mounted. (For Vite: not an asset, but found when it runs.)
const HOME = import.meta.env.DEV ? new URL('/', window.location.href) : new URL(/* @vite-ignore */ '../', import.meta.url)
const API = new URL('api/v1/', HOME)
const DEADLINE_MS = 20_000

export function apiUrl(path: string, query?: Query): string {
  const url = new URL(path, API)
  if (query) {
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== undefined && one !== null && one !== '') url.searchParams.append(name, String(one))
      }
    }
  }
  return url.href
}

export type Query = Record<string, string | number | boolean | null | undefined | readonly string[]>

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly requestId: string | null,
    readonly field: string | null = null,
    readonly retryAfterS: number | null = null,
  ) {
    super(detail)
  }

  /** Whether asking again may help without anybody doing something. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500
  }
}

type Ask = { query?: Query; body?: unknown; signal?: AbortSignal; headers?: Record<string, string> }

async function ask<T>(method: string, path: string, { query, body, signal, headers }: Ask = {}): Promise<T> {
  const deadline = AbortSignal.timeout(DEADLINE_MS)
  let answer: Response
  try {
    answer = await fetch(apiUrl(path, query), {
      method,
      credentials: 'same-origin',
      headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
    })
  } catch (error) {
    if (signal?.aborted) throw error
    const late = error instanceof DOMException && error.name === 'TimeoutError'
    throw new Problem(0, late ? 'timeout' : 'unreachable', late ? `No answer within ${DEADLINE_MS / 1000} s.` : 'The server does not answer.', null)
  }
  learnServerTime(answer.headers.get('date'))
  if (!answer.ok) throw await problem(answer)
  if (answer.status === 204) return undefined as T
  return (await answer.json()) as T
}

async function problem(answer: Response): Promise<Problem> {
  const id = answer.headers.get('x-request-id')
  const retryAfter = Number(answer.headers.get('retry-after')) || null
  try {
    const told = (await answer.json()) as Record<string, string | undefined>
    return new Problem(answer.status, told.code ?? 'error', told.detail ?? told.title ?? answer.statusText, told.request_id ?? id, told.field ?? null, retryAfter)
  } catch {
    return new Problem(answer.status, `http_${answer.status}`, answer.statusText || 'The answer cannot be read.', id, null, retryAfter)
  }
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) => ask<T>('GET', path, { query, signal })
export const post = <T>(path: string, body: unknown = {}, headers?: Record<string, string>) => ask<T>('POST', path, { body, headers })
export const patch = <T>(path: string, body: unknown, headers?: Record<string, string>) => ask<T>('PATCH', path, { body, headers })
export const put = <T>(path: string, body: unknown, headers?: Record<string, string>) => ask<T>('PUT', path, { body, headers })
export const remove = <T>(path: string) => ask<T>('DELETE', path)

/** For a change of settings as they were seen: somebody else's change since then is not overwritten. */
export const ifMatch = (etag: string) => ({ 'if-match': etag })

/** A path with its parts encoded: `path('jobs', id, 'retry')`. */
export function path(...parts: string[]): string {
  return parts.map(encodeURIComponent).join('/')
}
