import { useEffect } from 'react'
import { useOverview } from '../../api/queries'
import { compact } from '../../lib/format'
import { navigate, useParams } from '../../lib/hash_router'
import { readSearch, type JobFilter } from '../../lib/job_search'
import { PageHead } from '../../parts/page_head'
import { JobList, NoJobs } from './job_list'
import { SavedViews } from './saved_views'
import { SearchField } from './search_field'

const TABS = [
  { status: '', name: 'All' },
  { status: 'pending', name: 'Waiting' },
  { status: 'in_progress', name: 'Running' },
  { status: 'failed', name: 'Retry' },
  { status: 'done', name: 'Done' },
  { status: 'dead', name: 'Dead' },
] as const

export function Jobs() {
  const [params, change] = useParams()
  const counts = useOverview().data?.counts
  const line = params.get('q') ?? ''
  const status = params.get('status') ?? ''
  const found = readSearch(line)
  const { id } = found
  useEffect(() => {
    if (id && /^[0-9A-HJKMNP-TV-Z]{26}$/.test(id)) navigate(`/jobs/${id}`, { replace: true })
  }, [id])

  const filter: JobFilter = { ...found.filter }
  if (status && !filter.status) filter.status = [status]
  for (const name of ['parent', 'schedule', 'process'] as const) {
    const value = params.get(name)
    if (value) filter[name] = value
  }
  const plain = Object.keys(filter).length === 0
  return (
    <>
      <PageHead title="Jobs" />
      <div className="job-tools">
        <div className="tabs" role="group" aria-label="Status">
          {TABS.map((tab) => {
            const count = counts && tabCount(counts, tab.status)
            return (
              <button key={tab.status} type="button" aria-pressed={(filter.status?.length === 1 ? filter.status[0] : '') === tab.status && status === tab.status} onClick={() => change({ status: tab.status || null, cursor: null }, true)}>
                {tab.name}
                {count !== undefined && <span className="num faint">{compact(count)}</span>}
              </button>
            )
          })}
        </div>
        <SearchField line={line} focus={params.get('focus') === '1'} search={(next) => change({ q: next || null, cursor: null, focus: null })} />
        <SavedViews />
      </div>
      <Chips filter={filter} change={change} />
      <JobList
        view="jobs"
        filter={filter}
        actions={['retry', 'run_now', 'cancel', 'delete']}
        empty={
          plain ? (
            <NoJobs title="No jobs yet">
              Add one with <b>New job</b>, or on the command line: <code>forge-jobs enqueue noop_echo</code>
            </NoJobs>
          ) : (
            <NoJobs title="No job matches">
              <a href="#/jobs">Show all jobs</a>
            </NoJobs>
          )
        }
      />
    </>
  )
}

function tabCount(counts: { pending: number; in_progress: number; failed: number; done: number; dead: number }, status: string): number {
  if (status) return counts[status as keyof typeof counts]
  return counts.pending + counts.in_progress + counts.failed + counts.done + counts.dead
}

/** What of the filter came by a link rather than by the search line. */
function Chips({ filter, change }: { filter: JobFilter; change: (wanted: Record<string, null>, push?: boolean) => void }) {
  const set = (['parent', 'schedule', 'process'] as const).filter((name) => filter[name])
  if (!set.length) return null
  return (
    <p className="chips">
      {set.map((name) => (
        <button key={name} type="button" className="chip" onClick={() => change({ [name]: null }, true)} aria-label={`Remove ${name}`}>
          {name} <b>{filter[name]}</b> ✕
        </button>
      ))}
    </p>
  )
}
