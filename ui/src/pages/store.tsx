import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { post } from '../api/client'
import { useMay, useOverview, useRead, useWorkers } from '../api/queries'
import type { StoreInfo } from '../api/types'
import { bytes, duration, milliseconds, percent, whole } from '../lib/format'
import { useWindow } from '../lib/range'
import { heading } from '../lib/text'
import { now, useSecond } from '../lib/time'
import { Badge } from '../parts/badge'
import { Button } from '../parts/button'
import { Confirm } from '../parts/dialog'
import { Facts, type Fact } from '../parts/facts'
import { PageHead } from '../parts/page_head'
import { RangeBar } from '../parts/range_bar'
import { Loaded } from '../parts/states'
import { Text } from '../parts/text'
import { Countdown } from '../parts/time'
import { say } from '../parts/toast'
import { Findings } from './findings'
import { StoreCharts } from './metrics'
import { Banners } from './overview'

export function Store() {
  const read = useRead<StoreInfo>(['store'], 'storage')
  const banners = useOverview().data?.banners ?? []
  const admin = useMay('admin')
  const [asked, setAsked] = useState(false)
  const [window, setWindow] = useWindow()
  return (
    <>
      <PageHead title="Store">{admin && <Button onClick={() => setAsked(true)}>Clean up now</Button>}</PageHead>
      <Banners banners={banners.filter((banner) => banner.queue === null)} />
      <Findings />
      <Loaded read={read}>{(store) => <Shown store={store} />}</Loaded>
      <div className="block-head">
        <h2>Over time</h2>
        <RangeBar window={window} setWindow={setWindow} />
      </div>
      <StoreCharts window={window} zoom={(fromS, toS) => setWindow({ fromS, toS })} />
      {asked && <Cleanup close={() => setAsked(false)} />}
    </>
  )
}

function Shown({ store }: { store: StoreInfo }) {
  const names = new Map(useWorkers().data?.items.map((worker) => [worker.host_id, worker.worker]))
  const facts: Fact[] = [
    ['Backend', `${store.backend} ${store.version}`],
    ['Where', <span className="mono"><Text>{store.url}</Text></span>],
    ['Durability', store.durability ?? '–'],
    ['Schema version', store.pending_migrations.length ? <span className="warn">{store.schema_version}, to migrate: <Text>{store.pending_migrations.join(', ')}</Text></span> : `${store.schema_version}, up to date`],
    ...Object.entries(store.settings)
      .filter(([name]) => !SAID.has(name))
      .map(([name, value]): [string, React.ReactNode] => [NAMES[name] ?? heading(name.replace(/_bytes$/, '')), <Text>{setting(name, value, store.settings)}</Text>]),
  ]
  return (
    <div className="two">
      <Facts facts={facts} label="Facts" wide />
      <section className="panel" aria-label="Background loops">
        <header className="panel-head">
          <h2>Background loops</h2>
          <span className="faint">one worker runs each for all</span>
        </header>
        {store.leases.length === 0 ? (
          <p className="panel-text faint">No worker runs them: nothing is cleaned up, revived or scheduled.</p>
        ) : (
          <ul className="leases">
            {store.leases.map((lease) => (
              <li key={lease.name}>
                <b>{lease.name}</b>
                <a className="cut" href="#/workers" title={lease.holder}>
                  <Text>{names.get(lease.holder) ?? `…${lease.holder.slice(-8)}`}</Text>
                </a>
                <Lease expires={lease.expires_at} />
              </li>
            ))}
          </ul>
        )}
      </section>
    </div>
  )
}

/** Held until then; an old one says that its worker is gone and that no other has taken over yet. */
function Lease({ expires }: { expires: string }) {
  useSecond()
  return Date.parse(expires) < now() ? (
    <Badge tone="bad" mark="bang">
      expired
    </Badge>
  ) : (
    <span className="faint">
      held for <Countdown until={expires} />
    </span>
  )
}

// Told above or beside it already.
const SAID = new Set(['sqlite_version', 'server_version', 'path', 'place', 'free_disk_pct'])
const NAMES: Record<string, string> = {
  db_size_bytes: 'Size',
  wal_bytes: 'Write-ahead log',
  free_disk_bytes: 'Free disk',
  schema: 'Schema',
  jobs_bytes: 'Table of jobs',
  checkpoint_age_s: 'Last checkpoint',
  oldest_transaction_s: 'Oldest transaction',
  clock_ahead_of_host_ms: 'Clock ahead of here',
  notify_queue_pct: 'Notify queue used',
  listens: 'Listens',
  pooled: 'Behind a pooler',
  fsync: 'fsync',
  wal_reset_safe: 'Has WAL reset fix',
  wal_reset_defence: 'Checkpoints',
}

function setting(name: string, value: unknown, all: StoreInfo['settings']): string {
  if (value === null || value === undefined) return '–'
  if (name === 'free_disk_bytes' && typeof value === 'number') return `${bytes(value)}, ${percent(all.free_disk_pct as number | null)}`
  if (typeof value === 'number' && name === 'checkpoint_age_s') return `${duration(value)} ago`
  if (typeof value === 'number' && name.endsWith('_s')) return duration(value)
  if (typeof value === 'number' && name.endsWith('_ms')) return value < 0 ? `−${milliseconds(-value)}` : milliseconds(value)
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (typeof value === 'number' && name.endsWith('_pct')) return percent(value)
  if (typeof value === 'number') return name.endsWith('_bytes') || name.endsWith('size') ? bytes(value) : whole(value)
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function Cleanup({ close }: { close: () => void }) {
  const client = useQueryClient()
  const [done, setDone] = useState('')
  const [dead, setDead] = useState('')
  return (
    <Confirm
      title="Clean up now"
      act="Clean up"
      danger
      close={close}
      run={async () => {
        const body: Record<string, number> = {}
        if (done !== '') body.done_older_days = Number(done)
        if (dead !== '') body.dead_older_days = Number(dead)
        const report = await post<Record<string, number>>('maintenance/cleanup', body)
        const removed = Object.entries(report).filter(([, count]) => typeof count === 'number' && count > 0)
        say(removed.length ? `Removed: ${removed.map(([what, count]) => `${whole(count)} ${what.replaceAll('_', ' ')}`).join(', ')}` : 'There was nothing to remove')
        void client.invalidateQueries()
      }}
    >
      <p>Removes what is older than the retention of its queue, or than you say here.</p>
      <div className="fields">
        <label className="field">
          <span className="label">Done, older than days</span>
          <input type="number" min="0" step="any" value={done} placeholder="as each queue says" onChange={(event) => setDone(event.target.value)} />
        </label>
        <label className="field">
          <span className="label">Dead, older than days</span>
          <input type="number" min="0" step="any" value={dead} placeholder="as each queue says" onChange={(event) => setDead(event.target.value)} />
        </label>
      </div>
    </Confirm>
  )
}
