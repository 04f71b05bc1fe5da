import { useKinds } from '../../api/queries'
import type { Kind } from '../../api/types'
import { compact } from '../../lib/format'
import { address, navigate } from '../../lib/hash_router'
import { counted } from '../../lib/text'
import { Badge } from '../../parts/badge'
import { PageHead } from '../../parts/page_head'
import { Empty, Loaded } from '../../parts/states'
import { Table, type Column } from '../../parts/table'
import { Text } from '../../parts/text'

const COLUMNS: Column<Kind>[] = [
  {
    id: 'kind',
    head: 'Kind',
    cell: (kind) => (
      <a href={`#/kinds/${encodeURIComponent(kind.kind)}`}>
        <strong><Text>{kind.kind}</Text></strong>
      </a>
    ),
  },
  { id: 'state', head: 'State', cell: (kind) => <KindState kind={kind} /> },
  { id: 'what', head: 'What it does', grow: true, hide: 'middle', cell: (kind) => <span className="soft"><Text>{kind.description}</Text></span> },
  { id: 'executor', head: 'Executor', hide: 'narrow', cell: (kind) => <span className="soft"><Text>{kind.executor ?? ''}</Text></span> },
  { id: 'limit', head: 'Limit', hide: 'middle', cell: (kind) => <span className="soft"><Text>{limitOf(kind)}</Text></span> },
  { id: 'waiting', head: 'Waiting', right: true, cell: (kind) => <Jobs kind={kind.kind} count={kind.waiting} status="pending" /> },
  { id: 'running', head: 'Running', right: true, hide: 'narrow', cell: (kind) => <Jobs kind={kind.kind} count={kind.in_progress} status="in_progress" /> },
  { id: 'dead', head: 'Dead', right: true, cell: (kind) => <Jobs kind={kind.kind} count={kind.dead} status="dead" /> },
]

/** What jobs there are, and what code says of them. */
export function Kinds() {
  const read = useKinds()
  return (
    <>
      <PageHead title="Kinds" note="What jobs there are, as the code of workers declares them" />
      <section className="panel">
        <Loaded read={read}>
          {(kinds) =>
            kinds.items.length === 0 ? (
              <Empty title="No kinds yet">
                Start a worker, which declares the kinds that it has handlers for: <code>forge-jobs worker app:handlers</code>
              </Empty>
            ) : (
              <Table label="Kinds" columns={COLUMNS} rows={kinds.items} keyOf={(kind) => kind.kind} open={(kind) => navigate(`/kinds/${encodeURIComponent(kind.kind)}`)} />
            )
          }
        </Loaded>
      </section>
    </>
  )
}

export function limitOf(kind: Kind): string {
  return kind.paid_by_payload ? 'by payload' : (kind.rate_limit ?? '')
}

/** Whether somebody runs jobs of the kind, and whether people see what is in them. */
export function KindState({ kind }: { kind: Kind }) {
  const unserved = kind.queues.filter((queue) => !queue.served)
  return (
    <span className="tags">
      {kind.served ? (
        <Badge tone="good" mark="tick">
          {counted(kind.workers_total, 'worker')}
        </Badge>
      ) : (
        <Badge tone={kind.waiting > 0 ? 'bad' : 'wait'} mark={kind.waiting > 0 ? 'bang' : 'ring'}>
          {unserved.length > 0 && kind.workers_total > 0 ? <Text>{`not served in ${unserved.map((queue) => queue.queue).join(', ')}`}</Text> : 'not served'}
        </Badge>
      )}
      {kind.payload_hidden && <Badge tone="later">hidden</Badge>}
    </span>
  )
}

function Jobs({ kind, count, status }: { kind: string; count: number; status: string }) {
  if (count === 0) return <span className="faint num">0</span>
  return (
    <a className="num" href={`#${address('/jobs', { q: `kind:${kind}`, status })}`}>
      {compact(count)}
    </a>
  )
}
