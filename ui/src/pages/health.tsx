import { useRead, useWorkers } from '../api/queries'
import { timesOf, useSeries, valuesOf } from '../api/series'
import type { Findings, StoreInfo } from '../api/types'
import { bytes, milliseconds, percent, whole } from '../lib/format'
import { now } from '../lib/time'
import { Badge } from '../parts/badge'
import { Text } from '../parts/text'

const RECENT_S = 600
const EVERY_MS = 30_000

/** What workers use of their machines, and how the store is, in two lines that lead to their pages. */
export function Health() {
  return (
    <div className="two block even">
      <WorkersHealth />
      <StoreHealth />
    </div>
  )
}

function WorkersHealth() {
  const live = useWorkers().data?.items.filter((worker) => worker.live) ?? []
  const toS = Math.ceil(now() / 60_000) * 60
  const window = { fromS: toS - RECENT_S, toS, bucketS: 60, preset: null }
  const lines = useSeries('resources', window).data?.lines ?? []
  const times = timesOf(window)
  /** Of all live workers together, each by its newest minute. */
  const sum = (metric: string) => {
    const newest = live.map((worker) => valuesOf(lines, metric, 'mean', times, null, worker.host_id).findLast((value) => value !== null)).filter((value) => value != null)
    return newest.length ? newest.reduce((total, value) => total + value, 0) : null
  }
  if (!live.length) return null
  const lag = Math.max(...live.map((worker) => worker.loop_lag_ms))
  const busy = live.reduce((total, worker) => total + Object.keys(worker.running).length, 0)
  const open = live.reduce((total, worker) => total + Object.values(worker.slots).reduce((slots, n) => slots + n, 0), 0)
  return (
    <Strip title="Workers" to="#/workers" note={live.length === 1 ? '1 process' : `${whole(live.length)} processes`}>
      <Number name="Slots busy">
        {whole(busy)} of {whole(open)}
      </Number>
      <Number name="CPU">{percent(sum('cpu_pct'))}</Number>
      <Number name="Memory">{bytes(sum('rss_bytes'))}</Number>
      <Number name="Longest loop lag" tone={lag > 500 ? 'warn' : ''}>
        {milliseconds(lag)}
      </Number>
    </Strip>
  )
}

function StoreHealth() {
  const store = useRead<StoreInfo>(['store'], 'storage', undefined, { everyMs: EVERY_MS }).data
  const found = useRead<Findings>(['doctor'], 'doctor', undefined, { everyMs: EVERY_MS }).data
  if (!store) return null
  const { settings } = store
  const wrong = found?.checks.filter((check) => check.verdict !== 'ok').length ?? 0
  return (
    <Strip title="Store" to="#/store" note={<Text>{`${store.backend} ${store.version}`}</Text>}>
      <Number name="Size">{bytes((settings.db_size_bytes ?? settings.jobs_bytes) as number | undefined)}</Number>
      {settings.free_disk_bytes !== undefined && <Number name="Free disk">{bytes(settings.free_disk_bytes as number)}</Number>}
      {settings.max_connections !== undefined && (
        <Number name="Connections">
          {whole(settings.server_connections as number)} of {whole(settings.max_connections as number)}
        </Number>
      )}
      <Number name="Durability">{store.durability ?? '–'}</Number>
      {found && (
        <Number name="Findings">
          <Badge tone={!wrong ? 'good' : found.ok ? 'warn' : 'bad'} mark={!wrong ? 'tick' : found.ok ? 'bang' : 'cross'}>
            {wrong ? `${wrong} to look at` : 'all fine'}
          </Badge>
        </Number>
      )}
    </Strip>
  )
}

function Strip({ title, to, note, children }: { title: string; to: string; note: React.ReactNode; children: React.ReactNode }) {
  return (
    <section className="panel health" aria-label={`${title} health`}>
      <header>
        <a href={to}>
          <strong>{title}</strong>
        </a>
        <span className="faint">{note}</span>
      </header>
      <dl>{children}</dl>
    </section>
  )
}

function Number({ name, tone = '', children }: { name: string; tone?: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd className={`num ${tone}`}>{children}</dd>
    </div>
  )
}
