import { useState } from 'react'
import { useRead } from '../api/queries'
import type { AuditRow, Page } from '../api/types'
import { whole } from '../lib/format'
import { peekAt, useParams } from '../lib/hash_router'
import { Button } from '../parts/button'
import { Dialog } from '../parts/dialog'
import { Json } from '../parts/json'
import { PageHead } from '../parts/page_head'
import { Empty, Loaded } from '../parts/states'
import { Table, type Column } from '../parts/table'
import { Text } from '../parts/text'
import { Time } from '../parts/time'

const COLUMNS: Column<AuditRow>[] = [
  { id: 'at', head: 'When', cell: (row) => <Time at={row.at} /> },
  { id: 'actor', head: 'Who', cell: (row) => <strong><Text>{row.actor}</Text></strong> },
  { id: 'surface', head: 'Through', hide: 'narrow', cell: (row) => <span className="soft">{row.surface}</span> },
  { id: 'action', head: 'Did', cell: (row) => <span className="mono"><Text>{row.action}</Text></span> },
  { id: 'target', head: 'To', grow: true, cell: (row) => <Target row={row} /> },
  { id: 'count', head: 'Jobs', right: true, cell: (row) => whole(row.count) },
  { id: 'outcome', head: 'Outcome', cell: (row) => <span className="soft"><Text>{row.outcome}</Text></span> },
  { id: 'address', head: 'From', hide: 'middle', cell: (row) => <span className="faint"><Text>{row.address}</Text></span> },
]

/** What people did. */
export function Audit() {
  const [params, change] = useParams()
  const [opened, setOpened] = useState<AuditRow | null>(null)
  const query = { actor: params.get('actor'), action: params.get('action'), cursor: params.get('cursor'), limit: 50 }
  const read = useRead<Page<AuditRow>>(['audit'], 'audit', query)
  return (
    <>
      <PageHead title="Audit" note="What people did, through the dashboard, the API, the command line and Python" />
      <div className="job-tools">
        <Filter name="actor" value={query.actor ?? ''} change={(actor) => change({ actor, cursor: null })} />
        <Filter name="action" value={query.action ?? ''} change={(action) => change({ action, cursor: null })} />
      </div>
      <section className="panel">
        <Loaded read={read}>
          {(page) =>
            page.items.length === 0 ? (
              <Empty title={query.actor || query.action ? 'Nothing matches' : 'Nobody has done anything yet'} />
            ) : (
              <>
                <Table label="Audit" columns={COLUMNS} rows={page.items} keyOf={(row) => `${row.at} ${row.action} ${row.target} ${row.request_id}`} open={setOpened} />
                {page.next_cursor && (
                  <div className="below">
                    <Button icon="next" onClick={() => change({ cursor: page.next_cursor }, true)}>
                      Older
                    </Button>
                  </div>
                )}
              </>
            )
          }
        </Loaded>
      </section>
      {opened && (
        <Dialog title={opened.action} close={() => setOpened(null)} wide>
          <div className="dialog-text">
            <p>
              <b><Text>{opened.actor}</Text></b> ({opened.role}) through {opened.surface}, <Time at={opened.at} />
              {opened.request_id && (
                <>
                  {', request '}
                  <code>{opened.request_id}</code>
                </>
              )}
            </p>
            <p className="mono">
              <Text>{opened.target}</Text>
            </p>
            {opened.before != null && (
              <>
                <h3>Before</h3>
                <Json text={JSON.stringify(opened.before)} />
              </>
            )}
            {opened.after != null && (
              <>
                <h3>After</h3>
                <Json text={JSON.stringify(opened.after)} />
              </>
            )}
          </div>
        </Dialog>
      )}
    </>
  )
}

function Target({ row }: { row: AuditRow }) {
  return /^[0-9A-HJKMNP-TV-Z]{26}$/.test(row.target) ? (
    <a className="mono" href={`#/jobs/${row.target}`} onClick={peekAt(row.target)}>
      {row.target}
    </a>
  ) : (
    <span className="mono soft">
      <Text>{row.target}</Text>
    </span>
  )
}

function Filter({ name, value, change }: { name: string; value: string; change: (value: string | null) => void }) {
  const [typed, setTyped] = useState(value)
  return (
    <form
      className="small-filter"
      onSubmit={(event) => {
        event.preventDefault()
        change(typed.trim() || null)
      }}
    >
      <input type="search" aria-label={name} placeholder={name} value={typed} onChange={(event) => setTyped(event.target.value)} onBlur={() => typed.trim() !== value && change(typed.trim() || null)} />
    </form>
  )
}
