import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { post } from '../api/client'
import { useMay, useOverview, useRead } from '../api/queries'
import type { StoreInfo } from '../api/types'
import { bytes, percent, whole } from '../lib/format'
import { useWindow } from '../lib/range'
import { Badge } from '../parts/badge'
import { Button } from '../parts/button'
import { Confirm } from '../parts/dialog'
import { PageHead } from '../parts/page_head'
import { RangeBar } from '../parts/range_bar'
import { Loaded } from '../parts/states'
import { Text } from '../parts/text'
import { Time } from '../parts/time'
import { say } from '../parts/toast'
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
  const facts: [string, React.ReactNode][] = [
    ['Backend', `${store.backend} ${store.version}`],
    ['Where', <span className="mono"><Text>{store.url}</Text></span>],
    ['Durability', store.durability ?? '–'],
    ['Schema', store.pending_migrations.length ? <span className="warn">{store.schema_version}, to migrate: <Text>{store.pending_migrations.join(', ')}</Text></span> : `${store.schema_version}, up to date`],
    ...Object.entries(store.settings)
      .filter(([name]) => !SAID.has(name))
      .map(([name, value]): [string, React.ReactNode] => [NAMES[name] ?? heading(name), <Text>{setting(name, value)}</Text>]),
  ]
  return (
    <div className="two">
      <section className="panel facts-panel" aria-label="Facts">
        <dl className="facts">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </section>
      <section className="panel" aria-label="Background loops">
        <header className="panel-head">
          <h2>Background loops</h2>
          <span className="faint">who runs each, for the whole cluster</span>
        </header>
        {store.leases.length === 0 ? (
          <p className="panel-text faint">No worker runs them: nothing is cleaned up, revived or scheduled.</p>
        ) : (
          <ul className="leases">
            {store.leases.map((lease) => (
              <li key={lease.name}>
                <b>{lease.name}</b>
                <span className="mono faint cut">
                  <Text>{lease.holder}</Text>
                </span>
                {Date.parse(lease.expires_at) < Date.now() ? <Badge tone="bad">expired</Badge> : <span className="faint">renewed, lasts <Time at={lease.expires_at} /></span>}
              </li>
            ))}
          </ul>
        )}
      </section>
    </div>
  )
}

// Told above already.
const SAID = new Set(['sqlite_version', 'server_version', 'path'])
const NAMES: Record<string, string> = {
  db_size_bytes: 'Size',
  wal_bytes: 'Write-ahead log',
  free_disk_bytes: 'Free disk',
  free_disk_pct: 'Free disk, part',
  wal_reset_safe: 'Fixed SQLite',
  wal_reset_defence: 'Checkpoints',
}

function heading(name: string): string {
  const words = name.replace(/_bytes$/, '').replaceAll('_', ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}

function setting(name: string, value: unknown): string {
  if (value === null || value === undefined) return '–'
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
