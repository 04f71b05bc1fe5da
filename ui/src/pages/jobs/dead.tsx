import { useState } from 'react'
import { useGroups, useMay } from '../../api/queries'
import type { Group } from '../../api/types'
import { whole } from '../../lib/format'
import { useParams } from '../../lib/hash_router'
import { useKeys } from '../../lib/keys'
import { readSearch, REASONS, type JobFilter } from '../../lib/job_search'
import { Button } from '../../parts/button'
import { PageHead } from '../../parts/page_head'
import { Empty, Loaded } from '../../parts/states'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'
import { ActDialog } from './act_dialog'
import type { Action } from './actions'
import { firstLine } from './columns'
import { JobList, NoJobs } from './job_list'
import { SearchField } from './search_field'
import { useLine } from './waiting'

/** Jobs that ended without success: grouped by what went wrong, or one by one. */
export function Dead() {
  const [params, change] = useParams()
  const [line, search] = useLine()
  const single = params.get('view') === 'jobs' || line !== '' || params.has('reason')
  const reason = params.get('reason')
  const filter: JobFilter = { ...readSearch(line).filter, status: ['dead'] }
  if (reason) filter.dead_reason = [reason]
  return (
    <>
      <PageHead title="Dead" note="Ended without success. They stay until retention removes them.">
        <div className="segments" role="group" aria-label="View">
          <button type="button" aria-pressed={!single} onClick={() => change({ view: null, q: null, reason: null, cursor: null }, true)}>
            By error
          </button>
          <button type="button" aria-pressed={single} onClick={() => change({ view: 'jobs' }, true)}>
            One by one
          </button>
        </div>
      </PageHead>
      {single ? (
        <>
          <div className="job-tools">
            <div className="tabs" role="group" aria-label="Reason">
              {['', ...REASONS].map((one) => (
                <button key={one} type="button" aria-pressed={(reason ?? '') === one} onClick={() => change({ reason: one || null, view: 'jobs', cursor: null }, true)}>
                  {one || 'any reason'}
                </button>
              ))}
            </div>
            <SearchField line={line} search={search} />
          </div>
          <JobList view="dead" order="completed" filter={filter} actions={['retry', 'delete']} empty={<NoJobs title="No dead jobs match" />} />
        </>
      ) : (
        <Groups />
      )}
    </>
  )
}

function Groups() {
  useKeys({ j: () => step(1), k: () => step(-1) })
  const read = useGroups('dead', true)
  const may = useMay('operate')
  const [asked, setAsked] = useState<{ action: Action; fingerprint: string } | null>(null)
  return (
    <section className="panel">
      <Loaded read={read}>
        {(groups) =>
          groups.items.length === 0 ? (
            <Empty title="No dead jobs">Nothing has failed for good.</Empty>
          ) : (
            <ul className="groups">
              {groups.items.map((group) => (
                <li key={group.fingerprint}>
                  <span className="group-count num">{whole(group.count)}</span>
                  <div className="group-text">
                    <a className="mono cut" href={`#/dead?view=jobs&q=${encodeURIComponent(query(group))}`}>
                      <Text>{firstLine(group.sample) || 'no error'}</Text>
                    </a>
                    <p className="faint cut">
                      <Text>{group.kinds.join(', ')}</Text> in <Text>{group.queues.join(', ')}</Text> · first <Time at={group.first} /> · last <Time at={group.last} />
                    </p>
                  </div>
                  {may && (
                    <span className="group-acts">
                      <Button icon="retries" onClick={() => setAsked({ action: 'retry', fingerprint: group.fingerprint })}>
                        Retry group
                      </Button>
                      <Button tone="quiet" icon="trash" aria-label="Delete group" onClick={() => setAsked({ action: 'delete', fingerprint: group.fingerprint })} />
                    </span>
                  )}
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
      {asked && <ActDialog action={asked.action} targets={{ filter: { fingerprint: asked.fingerprint } }} close={() => setAsked(null)} done={() => void read.refetch()} />}
    </section>
  )
}

const HIDDEN_ERROR = '[error hidden by its handler]' // how the server says so

/** The focus goes on to the next group, or the one before. */
function step(by: number) {
  const links = [...document.querySelectorAll<HTMLElement>('.group-text a')]
  const at = links.indexOf(document.activeElement as HTMLElement)
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus()
}

// What a group's errors have in common up to the first thing that may differ: a number, an id, quoted text.
function common(group: Group): string {
  if (group.sample === HIDDEN_ERROR) return '' // nothing is found by what is hidden
  return firstLine(group.sample).split(/["'0-9]/, 1)[0]!.trim()
}

function query(group: Group): string {
  const quote = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`
  return [...group.kinds.map((kind) => `kind:${quote(kind)}`), ...(common(group) ? [`error:${quote(common(group))}`] : [])].join(' ')
}
