import { useOverview, useRead } from '../api/queries'
import type { Banner, JobRow, Overview as OverviewAnswer, Page, Queue } from '../api/types'
import { compact, duration, whole } from '../lib/format'
import { address, navigate, openJob } from '../lib/hash_router'
import { useWindow } from '../lib/range'
import { Icon } from '../parts/icons'
import { JobCharts } from '../parts/job_charts'
import { PageHead } from '../parts/page_head'
import { RangeBar } from '../parts/range_bar'
import { Loaded } from '../parts/states'
import { Table, type Column } from '../parts/table'
import { Text } from '../parts/text'
import { Age } from '../parts/time'
import { Health } from './health'
import { JobLink } from './jobs/columns'
import { QueueState } from './queues/queue_state'

export function Overview() {
  const read = useOverview()
  const [window, setWindow] = useWindow()
  return (
    <>
      <PageHead title="Overview">
        <RangeBar window={window} setWindow={setWindow} />
      </PageHead>
      <Loaded read={read}>
        {(overview) => (
          <>
            <Banners banners={overview.banners} />
            <Totals overview={overview} />
          </>
        )}
      </Loaded>
      <JobCharts window={window} zoom={(fromS, toS) => setWindow({ fromS, toS })} />
      {read.data && <QueueStrip queues={read.data.queues} />}
      <Running />
      <Health />
    </>
  )
}

export function Banners({ banners }: { banners: Banner[] }) {
  if (!banners.length) return null
  return (
    <ul className="banners" aria-label="What needs a look">
      {banners.map((banner) => (
        <li key={`${banner.kind} ${banner.queue} ${banner.worker} ${banner.text}`} className={banner.level}>
          <Icon name="warn" />
          <span>
            <Text>{banner.text}</Text>
          </span>
          {banner.queue ? (
            <a href={`#/queues/${encodeURIComponent(banner.queue)}`}>Queue</a>
          ) : banner.worker ? (
            <a href="#/workers">Workers</a>
          ) : null}
        </li>
      ))}
    </ul>
  )
}

type Total = { name: string; value: string; to: string; note?: string; tone?: string }

function Totals({ overview }: { overview: OverviewAnswer }) {
  const { counts, rates } = overview
  const totals: Total[] = [
    { name: 'Ready', value: compact(counts.ready), to: '/jobs?status=pending', note: counts.ready && overview.oldest_ready_age_s !== null ? `oldest ${duration(overview.oldest_ready_age_s)}` : 'nothing waits', tone: (overview.oldest_ready_age_s ?? 0) > 300 ? 'warn' : '' },
    { name: 'Running', value: compact(counts.in_progress), to: '/jobs?status=in_progress', note: `${whole(overview.slots_busy)} of ${whole(overview.slots_open)} slots` },
    { name: 'Scheduled', value: compact(counts.scheduled), to: '/scheduled' },
    { name: 'Retries', value: compact(counts.failed), to: '/retries', tone: counts.failed ? 'warn' : '', note: `${compact(rates.retried_per_s)}/s run again` },
    { name: 'Dead', value: compact(counts.dead), to: '/dead', tone: counts.dead ? 'bad' : '', note: `${compact(rates.failed_per_s)}/s` },
    { name: 'Done', value: compact(counts.done), to: '/jobs?status=done', note: `${compact(rates.completed_per_s)}/s` },
    { name: 'Workers', value: whole(overview.workers_live), to: '/workers', tone: overview.workers_live ? '' : 'bad', note: `${compact(rates.enqueued_per_s)}/s added` },
  ]
  return (
    <ul className="totals panel">
      {totals.map((total) => (
        <li key={total.name}>
          <a href={`#${total.to}`}>
            <span className="total-name">{total.name}</span>
            <b className={`num ${total.tone ?? ''}`}>{total.value}</b>
            <span className="faint num">{total.note ?? '\u00a0'}</span>
          </a>
        </li>
      ))}
    </ul>
  )
}

const QUEUE_COLUMNS: Column<Queue>[] = [
  { id: 'name', head: 'Queue', cell: (queue) => <a href={`#/queues/${encodeURIComponent(queue.name)}`}><strong><Text>{queue.name}</Text></strong></a> },
  { id: 'state', head: 'State', cell: (queue) => <QueueState queue={queue} /> },
  { id: 'load', head: 'Slots', cell: (queue) => <Load queue={queue} /> },
  { id: 'ready', head: 'Ready', right: true, cell: (queue) => compact(queue.counts.ready) },
  { id: 'oldest', head: 'Oldest', right: true, hide: 'narrow', cell: (queue) => <Age since={queue.counts.oldest_ready_at} warnS={60} badS={600} /> },
  { id: 'scheduled', head: 'Scheduled', right: true, hide: 'middle', cell: (queue) => compact(queue.counts.scheduled) },
  { id: 'failed', head: 'Retries', right: true, cell: (queue) => <Tinted count={queue.counts.failed} tone="warn" to={address('/retries', { q: `queue:${queue.name}` })} /> },
  { id: 'dead', head: 'Dead', right: true, cell: (queue) => <Tinted count={queue.counts.dead} tone="bad" to={address('/dead', { view: 'jobs', q: `queue:${queue.name}` })} /> },
  { id: 'done', head: 'Done', right: true, hide: 'narrow', cell: (queue) => compact(queue.counts.done) },
]

function QueueStrip({ queues }: { queues: Queue[] }) {
  if (!queues.length) return null
  return (
    <section className="panel block" aria-label="Queues">
      <Table label="Queues" columns={QUEUE_COLUMNS} rows={queues} keyOf={(queue) => queue.name} open={(queue) => navigate(`/queues/${encodeURIComponent(queue.name)}`)} />
    </section>
  )
}

export function Tinted({ count, tone, to }: { count: number; tone: string; to: string }) {
  if (!count) return <span className="faint">0</span>
  return (
    <a className={tone} href={`#${to}`}>
      {compact(count)}
    </a>
  )
}

export function Load({ queue }: { queue: Queue }) {
  return (
    <span className="load">
      <meter min={0} max={queue.slots_open || 1} value={queue.slots_busy} aria-label={`${queue.slots_busy} of ${queue.slots_open} slots busy`} />
      <span className="num soft">
        {queue.slots_busy}/{queue.slots_open}
      </span>
    </span>
  )
}

const RUNNING: Column<JobRow>[] = [
  { id: 'id', head: 'Running', cell: (job) => <JobLink id={job.id} short /> },
  { id: 'kind', head: 'Kind', cell: (job) => <strong><Text>{job.kind}</Text></strong> },
  { id: 'queue', head: 'Queue', cell: (job) => <span className="soft"><Text>{job.queue}</Text></span> },
  { id: 'worker', head: 'Worker', hide: 'middle', cell: (job) => <span className="soft"><Text>{job.worker ?? job.process_id}</Text></span> },
  { id: 'payload', head: 'Payload', grow: true, hide: 'narrow', cell: (job) => <span className="mono soft"><Text>{job.payload_preview}</Text></span> },
  { id: 'beat', head: 'Beat', right: true, hide: 'narrow', cell: (job) => <Age since={job.heartbeat_at} warnS={15} badS={30} /> },
  { id: 'age', head: 'For', right: true, cell: (job) => <Age since={job.started_at} /> },
]

function Running() {
  const read = useRead<Page<JobRow>>(['jobs'], 'jobs', { status: ['in_progress'], limit: 10 })
  if (!read.data?.items.length) return null
  const rows = read.data.items.toSorted((a, b) => (a.started_at ?? '').localeCompare(b.started_at ?? ''))
  return (
    <section className="panel block" aria-label="Running jobs">
      <Table label="Running jobs" columns={RUNNING} rows={rows} keyOf={(job) => job.id} open={(job) => openJob(job.id)} jobs />
      {(read.data.total ?? 0) > rows.length && (
        <p className="below">
          <a href="#/jobs?status=in_progress">All {whole(read.data.total)} running jobs</a>
        </p>
      )}
    </section>
  )
}
