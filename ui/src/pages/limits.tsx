import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { ifMatch, path, post, put } from '../api/client'
import { useLimits, useMay } from '../api/queries'
import type { RateLimit } from '../api/types'
import { compact, duration } from '../lib/format'
import { now, useSecond } from '../lib/time'
import { Badge } from '../parts/badge'
import { Button } from '../parts/button'
import { Confirm } from '../parts/dialog'
import { Field } from '../parts/field'
import { PageHead } from '../parts/page_head'
import { Empty, Loaded } from '../parts/states'
import { Table, type Column } from '../parts/table'
import { Text } from '../parts/text'
import { Countdown, Time } from '../parts/time'
import { say } from '../parts/toast'

type Asked = { what: 'set'; limit: RateLimit | null } | { what: 'drain'; limit: RateLimit }

/** Budgets that all workers share. */
export function Limits() {
  const read = useLimits()
  const operate = useMay('operate')
  const admin = useMay('admin')
  const [asked, setAsked] = useState<Asked | null>(null)
  const columns: Column<RateLimit>[] = [
    { id: 'scope', head: 'Scope', cell: (limit) => <strong><Text>{limit.scope}</Text></strong> },
    { id: 'state', head: 'State', cell: (limit) => <State limit={limit} /> },
    { id: 'tokens', head: 'Tokens', cell: (limit) => <Tokens limit={limit} /> },
    { id: 'refill', head: 'Refill', right: true, cell: (limit) => refill(limit) },
    { id: 'kinds', head: 'Kinds', grow: true, hide: 'middle', cell: (limit) => <span className="soft"><UsedBy limit={limit} /></span> },
    { id: 'waiting', head: 'Waiting', right: true, cell: (limit) => <span className={limit.waiting ? 'num' : 'num faint'}>{compact(limit.waiting)}</span> },
    {
      id: 'changed',
      head: 'Changed',
      right: true,
      hide: 'narrow',
      cell: (limit) => (
        <span className="faint">
          <Time at={limit.changed_at} none="" /> <Text>{limit.changed_by}</Text>
        </span>
      ),
    },
    {
      id: 'acts',
      head: <span className="visually-hidden">Acts</span>,
      right: true,
      cell: (limit) => (
        <span className="row-acts">
          {admin && <Button onClick={() => setAsked({ what: 'set', limit })}>Change</Button>}
          {operate && !limit.per_key && <Button onClick={() => setAsked({ what: 'drain', limit })}>Drain</Button>}
        </span>
      ),
    },
  ]
  return (
    <>
      <PageHead title="Rate limits" note="Budgets that all workers share">
        {admin && (
          <Button icon="add" onClick={() => setAsked({ what: 'set', limit: null })}>
            New limit
          </Button>
        )}
      </PageHead>
      <section className="panel">
        <Loaded read={read}>
          {(limits) =>
            limits.items.length === 0 ? (
              <Empty title="No rate limits">
                Declare one in code, or: <code>forge-jobs limits set github --capacity 100 --refill 1</code>
              </Empty>
            ) : (
              <Table label="Rate limits" columns={columns} rows={limits.items} keyOf={(limit) => limit.scope} />
            )
          }
        </Loaded>
      </section>
      {asked?.what === 'set' && <SetLimit limit={asked.limit} close={() => setAsked(null)} />}
      {asked?.what === 'drain' && <Drain limit={asked.limit} close={() => setAsked(null)} />}
    </>
  )
}

function UsedBy({ limit }: { limit: RateLimit }) {
  if (limit.kinds.length === 0) return limit.per_key ? 'a bucket for each key' : null
  return limit.kinds.map((kind, at) => (
    <span key={kind}>
      {at > 0 && ', '}
      <a href={`#/kinds/${encodeURIComponent(kind)}`}><Text>{kind}</Text></a>
    </span>
  ))
}

function refill(limit: RateLimit): React.ReactNode {
  if (limit.refill_per_s === 0) return <span className="faint">fixed budget</span>
  return limit.refill_per_s >= 1 ? `${compact(limit.refill_per_s)}/s` : `one in ${duration(1 / limit.refill_per_s)}`
}

function blocked(limit: RateLimit): boolean {
  return limit.blocked_until !== null && Date.parse(limit.blocked_until) > now()
}

function State({ limit }: { limit: RateLimit }) {
  useSecond()
  if (limit.per_key) return <Badge tone="wait">pattern</Badge>
  if (blocked(limit)) {
    return (
      <Badge tone="bad" mark="bars">
        shut for <Countdown until={limit.blocked_until!} />
      </Badge>
    )
  }
  return limit.tokens < 1 ? (
    <Badge tone="warn" mark="clock">
      empty
    </Badge>
  ) : (
    <Badge tone="good" mark="tick">
      open
    </Badge>
  )
}

function Tokens({ limit }: { limit: RateLimit }) {
  if (limit.per_key) return <span className="num soft">{compact(limit.capacity)} each</span>
  return (
    <span className="load">
      <meter min={0} max={limit.capacity} value={limit.tokens} aria-label={`${limit.tokens} of ${limit.capacity} tokens`} />
      <span className="num soft">
        {compact(Math.floor(limit.tokens * 10) / 10)} of {compact(limit.capacity)}
      </span>
    </span>
  )
}

function SetLimit({ limit, close }: { limit: RateLimit | null; close: () => void }) {
  const client = useQueryClient()
  const [scope, setScope] = useState(limit?.scope ?? '')
  const [capacity, setCapacity] = useState(limit ? String(limit.capacity) : '')
  const [perS, setPerS] = useState(limit ? String(limit.refill_per_s) : '')
  return (
    <Confirm
      title={limit ? `Change ${limit.scope}` : 'New rate limit'}
      act="Save"
      ready={scope.trim() !== '' && capacity !== '' && perS !== ''}
      close={close}
      run={async () => {
        await put(path('rate-limits', scope.trim()), { capacity: Number(capacity), refill_per_s: Number(perS) }, limit ? ifMatch(limit.etag) : undefined)
        say('Saved')
        void client.invalidateQueries({ queryKey: ['limits'] })
      }}
    >
      <div className="fields">
        {!limit && (
          <Field label="Scope" whole>
            <input type="text" value={scope} autoFocus onChange={(event) => setScope(event.target.value)} />
          </Field>
        )}
        <Field label="Capacity" note="tokens at most, and so the largest burst">
          <input type="number" step="any" min="0" value={capacity} onChange={(event) => setCapacity(event.target.value)} />
        </Field>
        <Field label="Refill per second" note="0: a fixed budget">
          <input type="number" step="any" min="0" value={perS} onChange={(event) => setPerS(event.target.value)} />
        </Field>
      </div>
    </Confirm>
  )
}

function Drain({ limit, close }: { limit: RateLimit; close: () => void }) {
  const client = useQueryClient()
  const [shutS, setShutS] = useState('')
  return (
    <Confirm
      title={`Drain ${limit.scope}`}
      act="Drain"
      danger
      close={close}
      run={async () => {
        await post(path('rate-limits', limit.scope, 'drain'), shutS ? { retry_after: Number(shutS) } : {})
        say(`${limit.scope} is drained`)
        void client.invalidateQueries({ queryKey: ['limits'] })
      }}
    >
      <p>Its tokens are taken away. Jobs that need it wait until it has filled again.</p>
      <Field label="And shut it for, s" note="empty: only drained">
        <input type="number" min="0" max="604800" value={shutS} autoFocus onChange={(event) => setShutS(event.target.value)} />
      </Field>
    </Confirm>
  )
}
