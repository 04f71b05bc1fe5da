// The line above the list of jobs: `queue:mail status:dead error:"timed out" some text`. Bare words search the payload.
export const QUALIFIERS = ['queue', 'kind', 'status', 'reason', 'key', 'tag', 'error', 'id', 'payload'] as const
export type Qualifier = (typeof QUALIFIERS)[number]
export const STATUSES = ['pending', 'in_progress', 'done', 'failed', 'dead'] as const
export const REASONS = ['exhausted', 'rejected', 'cancelled', 'crashed', 'expired', 'superseded'] as const

/** What the API takes as parameters of a list and as the filter of a bulk act. */
export type JobFilter = {
  queue?: string[]
  kind?: string[]
  status?: string[]
  dead_reason?: string[]
  key?: string
  tag?: string
  error?: string
  search?: string
  parent?: string
  schedule?: string
  process?: string
  fingerprint?: string
}

export type Search = { filter: JobFilter; id: string | null; unknown: string[] }

const WORD = /(?:([a-z]+):)?(?:"((?:[^"\\]|\\.)*)"?|(\S+))/g

/** Reads the line. Unknown qualifiers are named, so that the page can say so instead of searching for nothing. */
export function readSearch(line: string): Search {
  const filter: JobFilter = {}
  const unknown: string[] = []
  const bare: string[] = []
  let id: string | null = null
  for (const [whole, name, quoted, word] of line.matchAll(WORD)) {
    const value = quoted !== undefined ? quoted.replace(/\\(.)/g, '$1') : (word ?? '')
    if (name && value === '') continue // the value is still to be typed
    if (!name) bare.push(value)
    else if (name === 'queue' || name === 'kind') filter[name] = [...(filter[name] ?? []), value]
    else if (name === 'status') filter.status = [...(filter.status ?? []), value]
    else if (name === 'reason') filter.dead_reason = [...(filter.dead_reason ?? []), value]
    else if (name === 'key' || name === 'tag' || name === 'error') filter[name] = value
    else if (name === 'payload') bare.push(value)
    else if (name === 'id') id = value.toUpperCase()
    else if (/^[a-z]+:\/\//.test(whole)) bare.push(whole)
    else unknown.push(name)
  }
  if (bare.length) filter.search = bare.join(' ')
  if (!id && /^[0-9A-HJKMNP-TV-Z]{26}$/i.test(line.trim())) return { filter: {}, id: line.trim().toUpperCase(), unknown }
  return { filter, id, unknown }
}

/** `value` as one word of the line. */
export function quoted(value: string): string {
  return /[\s":]/.test(value) || !value ? `"${value.replace(/["\\]/g, '\\$&')}"` : value
}

export type Offer = { text: string; insert: string }

/** How the word that ends at the end of `line` may go on. */
export function offers(line: string, known: { queues: string[]; kinds: string[] }): Offer[] {
  const last = /(\S*)$/.exec(line)?.[1] ?? ''
  const head = line.slice(0, line.length - last.length)
  const [name, value] = last.includes(':') ? [last.slice(0, last.indexOf(':')), last.slice(last.indexOf(':') + 1)] : [null, last]
  if (name === null) {
    return QUALIFIERS.filter((q) => value && q.startsWith(value.toLowerCase()) && q !== value).map((q) => ({ text: `${q}:`, insert: `${head}${q}:` }))
  }
  const values: Record<string, readonly string[]> = { queue: known.queues, kind: known.kinds, status: STATUSES, reason: REASONS }
  return (values[name] ?? [])
    .filter((one) => one.toLowerCase().includes(value.toLowerCase()) && one !== value)
    .slice(0, 8)
    .map((one) => ({ text: one, insert: `${head}${name}:${quoted(one)} ` }))
}
