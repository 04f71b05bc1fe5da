import { useState } from 'react'
import { useMay, useRead } from '../../api/queries'
import type { JobRow, Page } from '../../api/types'
import { whole } from '../../lib/format'
import { openJob, useOpenJob, useParams } from '../../lib/hash_router'
import type { JobFilter } from '../../lib/job_search'
import { counted } from '../../lib/text'
import { Button } from '../../parts/button'
import { Empty, Loaded } from '../../parts/states'
import { Table } from '../../parts/table'
import { say, sayProblem } from '../../parts/toast'
import { useHeld } from '../../parts/use_held'
import { ActDialog, type Targets } from './act_dialog'
import type { Action } from './actions'
import { ACTIONS } from './actions'
import { COLUMNS } from './columns'
import { exportJobs, MOST_ROWS } from './export'

const PER_PAGE = 50

type Props = {
  view: keyof typeof COLUMNS
  filter: JobFilter
  order?: 'newest' | 'scheduled' | 'future' | 'completed'
  actions: Action[]
  empty: React.ReactNode
}

/** One page of jobs, with what can be done to those that are chosen or to all that match. */
export function JobList({ view, filter, order, actions, empty }: Props) {
  const [params, change] = useParams()
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set())
  const [every, setEvery] = useState(false) // all that match, on further pages too
  const [pointer, setPointer] = useState(false)
  const [asked, setAsked] = useState<{ action: Action; targets: Targets } | null>(null)
  const [exporting, setExporting] = useState(false)
  const may = useMay('operate')
  const opened = useOpenJob() !== null
  const cursor = params.get('cursor')
  const query = { ...filter, order, limit: PER_PAGE, cursor }
  const scope = JSON.stringify(query)
  const read = useRead<Page<JobRow>>(['jobs'], 'jobs', query)
  const held = useHeld(read.isPlaceholderData ? undefined : read.data?.items, (job) => job.id, scope, pointer || chosen.size > 0 || opened)
  const [lastScope, setLastScope] = useState(scope)
  if (scope !== lastScope) {
    setLastScope(scope)
    setChosen(new Set())
    setEvery(false)
  }

  function choose(next: ReadonlySet<string>) {
    setChosen(next)
    setEvery(false)
  }

  const targets = (): Targets => (every ? { filter } : { ids: [...chosen] })

  async function save() {
    setExporting(true)
    try {
      const rows = await exportJobs({ ...filter, order })
      say(rows < MOST_ROWS ? `Exported ${counted(rows, 'job')}` : `Exported the first ${counted(rows, 'job')}; forge-jobs jobs export writes all`)
    } catch (error) {
      sayProblem(error)
    }
    setExporting(false)
  }

  return (
    <section className="panel" onMouseEnter={() => setPointer(true)} onMouseLeave={() => setPointer(false)}>
      <Loaded read={read} rows={12}>
        {(page) => {
          const rows = read.isPlaceholderData ? page.items : held.rows
          return (
            <>
              <div className={`list-bar ${rows.length ? '' : 'idle'}`}>
                {chosen.size > 0 ? (
                  <>
                    <strong className="num">{every ? `All ${total(page)} selected` : `${whole(chosen.size)} selected`}</strong>
                    {!every && (cursor || page.next_cursor) && rows.every((job) => chosen.has(job.id)) && (
                      <Button tone="quiet" className="fresh" onClick={() => setEvery(true)}>
                        Select all {total(page)} that match
                      </Button>
                    )}
                    {actions.map((action) => (
                      <Button key={action} icon={ACTIONS[action].icon} tone={ACTIONS[action].danger ? 'danger' : 'plain'} onClick={() => setAsked({ action, targets: targets() })}>
                        {ACTIONS[action].name}
                      </Button>
                    ))}
                    <Button tone="quiet" onClick={() => choose(new Set())}>
                      Clear
                    </Button>
                  </>
                ) : (
                  <>
                    <span className="num soft">{total(page)}</span>
                    {held.fresh > 0 && !read.isPlaceholderData && (
                      <Button tone="quiet" className="fresh" onClick={held.show}>
                        {held.fresh} new
                      </Button>
                    )}
                    {rows.length > 0 && (
                      <span className="all-acts">
                        <span className="faint">All that match:</span>
                        {may &&
                          actions.map((action) => (
                            <Button key={action} tone="quiet" icon={ACTIONS[action].icon} onClick={() => setAsked({ action, targets: { filter } })}>
                              {ACTIONS[action].name}
                            </Button>
                          ))}
                        <Button tone="quiet" icon="down" busy={exporting} onClick={() => void save()}>
                          Export
                        </Button>
                      </span>
                    )}
                  </>
                )}
              </div>
              {rows.length === 0 ? (
                empty
              ) : (
                <Table
                  label="Jobs"
                  columns={COLUMNS[view]}
                  rows={rows}
                  keyOf={(job) => job.id}
                  open={(job) => openJob(job.id)}
                  jobs
                  dimmed={(job) => !read.isPlaceholderData && held.gone(job)}
                  selection={may ? { chosen, choose } : undefined}
                  keys={
                    may
                      ? (job) =>
                          Object.fromEntries(
                            actions.filter((action) => ACTIONS[action].key).map((action) => [ACTIONS[action].key, () => setAsked({ action, targets: chosen.size ? targets() : { ids: [job.id] } })]),
                          )
                      : undefined
                  }
                />
              )}
              {(cursor || page.next_cursor) && (
                <div className="below">
                  {cursor && (
                    <Button tone="quiet" onClick={() => change({ cursor: null }, true)}>
                      First page
                    </Button>
                  )}
                  {page.next_cursor && (
                    <Button icon="next" onClick={() => change({ cursor: page.next_cursor }, true)}>
                      Next {PER_PAGE}
                    </Button>
                  )}
                </div>
              )}
            </>
          )
        }}
      </Loaded>
      {asked && <ActDialog {...asked} close={() => setAsked(null)} done={() => choose(new Set())} />}
    </section>
  )
}

function total(page: Page<JobRow>): string {
  if (page.total !== null) return `${whole(page.total)} job${page.total === 1 ? '' : 's'}`
  return page.total_at_least ? `at least ${whole(page.total_at_least)} jobs` : `${page.items.length} jobs shown`
}

export function NoJobs({ title, children }: { title: string; children?: React.ReactNode }) {
  return <Empty title={title}>{children}</Empty>
}
