// Jobs that match, as a CSV file that spreadsheets open without running anything in it.
import { get, type Query } from '../../api/client'
import type { JobRow, Page } from '../../api/types'

const PER_READ = 1_000
export const MOST_ROWS = 10_000
const COLUMNS = [
  'id', 'queue', 'kind', 'status', 'dead_reason', 'priority', 'attempts', 'max_attempts', 'crashes', 'enqueued_at', 'scheduled_at',
  'started_at', 'completed_at', 'worker', 'dedupe_key', 'tags', 'parent_id', 'last_error', 'payload_preview',
] as const satisfies (keyof JobRow)[]

/** A cell; one that a spreadsheet would take for a formula begins with an apostrophe. */
export function cell(value: unknown): string {
  const text = value == null ? '' : Array.isArray(value) ? value.join(' ') : String(value)
  const safe = typeof value === 'string' && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

/** Reads page by page and hands the file to the browser. The answer is how many rows it has. */
export async function exportJobs(query: Query): Promise<number> {
  const lines = [COLUMNS.join(',')]
  let cursor: string | null = null
  do {
    const page: Page<JobRow> = await get<Page<JobRow>>('jobs', { ...query, limit: PER_READ, cursor })
    for (const job of page.items) lines.push(COLUMNS.map((name) => cell(job[name])).join(','))
    cursor = page.next_cursor
  } while (cursor && lines.length <= MOST_ROWS)
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([lines.join('\r\n'), '\r\n'], { type: 'text/csv' }))
  link.download = `jobs-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.csv`
  link.click()
  URL.revokeObjectURL(link.href)
  return lines.length - 1
}
