import { useMemo } from 'react'
import { useQueues, useWorkers } from '../api/queries'
import { timesOf, useSeries, valuesOf, type Part } from '../api/series'
import type { Line } from '../api/types'
import { bytes, compact, duration, milliseconds, percent } from '../lib/format'
import { useParams } from '../lib/hash_router'
import { heading } from '../lib/text'
import { useWindow, type Window } from '../lib/range'
import { BYTES, Chart, MILLISECONDS, type Series } from '../parts/chart'
import { JobCharts } from '../parts/job_charts'
import { PageHead } from '../parts/page_head'
import { RangeBar } from '../parts/range_bar'
import { Loaded } from '../parts/states'

export function Metrics() {
  const [params, change] = useParams()
  const [window, setWindow] = useWindow()
  const queues = useQueues().data?.items ?? []
  const queue = params.get('queue') ?? undefined
  const zoom = (fromS: number, toS: number) => setWindow({ fromS, toS })
  return (
    <>
      <PageHead title="Metrics">
        <select aria-label="Queue" value={queue ?? ''} onChange={(event) => change({ queue: event.target.value || null })}>
          <option value="">All queues</option>
          {queues.map((one) => (
            <option key={one.name}>{one.name}</option>
          ))}
        </select>
        <RangeBar window={window} setWindow={setWindow} />
      </PageHead>
      <JobCharts window={window} zoom={zoom} queue={queue} all />
      <div className="block-head">
        <h2>Worker processes</h2>
      </div>
      <Resources window={window} zoom={zoom} />
      <div className="block-head">
        <h2>Store</h2>
      </div>
      <StoreCharts window={window} zoom={zoom} />
    </>
  )
}

type Zoomed = { window: Window; zoom: (fromS: number, toS: number) => void }
const MOST_PROCESSES = 6 // lines that one can tell apart

const RESOURCES: { title: string; metric: string; part: Part; format: (value: number | null) => string }[] = [
  { title: 'CPU', metric: 'cpu_pct', part: 'mean', format: percent },
  { title: 'Memory', metric: 'rss_bytes', part: 'max', format: bytes },
  { title: 'Event loop lag, p99', metric: 'loop_lag_ms', part: 'p99', format: milliseconds },
  { title: 'Store reads, p95', metric: 'db_read_ms', part: 'p95', format: milliseconds },
  { title: 'Store writes, p95', metric: 'db_write_ms', part: 'p95', format: milliseconds },
  { title: 'Threads', metric: 'threads', part: 'max', format: compact },
]

function Resources({ window, zoom }: Zoomed) {
  const read = useSeries('resources', window)
  const names = new Map(useWorkers().data?.items.map((worker) => [worker.host_id, worker.worker]))
  const times = useMemo(() => timesOf(window), [window])
  return (
    <Loaded read={read}>
      {(answer) => {
        const hosts = [...new Set(answer.lines.map((line) => line.host_id).filter((id) => id !== null))]
        const shown = hosts.slice(-MOST_PROCESSES)
        return (
          <div className="charts">
            {RESOURCES.map((one) => (
              <Chart
                key={one.metric}
                title={one.title}
                note={hosts.length > shown.length ? `the newest ${shown.length} of ${hosts.length} processes` : undefined}
                times={times}
                format={one.format}
                units={one.format === bytes ? BYTES : one.format === milliseconds ? MILLISECONDS : undefined}
                group="page"
                zoom={zoom}
                series={shown.map((host, i): Series => ({ label: label(names.get(host) ?? host, i, shown, names), colour: ((i % 6) + 1) as Series['colour'], values: valuesOf(answer.lines, one.metric, one.part, times, null, host) }))}
              />
            ))}
          </div>
        )
      }}
    </Loaded>
  )
}

// Two boots of one worker share a label; the end of the id tells them apart.
function label(name: string, index: number, hosts: string[], names: Map<string, string>): string {
  const twice = hosts.filter((host) => (names.get(host) ?? host) === name).length > 1
  return twice ? `${name} …${hosts[index]!.slice(-4)}` : name.length > 20 ? `…${name.slice(-8)}` : name
}

const FORMATS: Record<string, (value: number | null) => string> = { bytes, '%': percent, ms: milliseconds, s: duration }
const TITLES: Record<string, string> = {
  db_size_bytes: 'Size',
  wal_bytes: 'Write-ahead log',
  free_disk_pct: 'Free disk',
  server_connections: 'Connections of the server',
  our_connections: 'Connections of forge-jobs',
  connections_used_pct: 'Connections used',
  dead_tuples: 'Dead tuples',
  checkpoint_age_s: 'Age of the last checkpoint',
  active_connections: 'Connections at work',
  oldest_transaction_s: 'Oldest transaction',
  notify_queue_pct: 'Notify queue used',
}

export function StoreCharts({ window, zoom }: Zoomed) {
  const read = useSeries('store', window)
  const times = useMemo(() => timesOf(window), [window])
  return (
    <Loaded read={read}>
      {(answer) => (
        <div className="charts">
          {answer.lines
            .filter((line) => line.points.length > 0)
            .map((line: Line) => (
              <Chart
                key={line.metric}
                title={TITLES[line.metric] ?? heading(line.metric)}
                times={times}
                format={FORMATS[line.unit] ?? compact}
                units={line.unit === 'bytes' ? BYTES : undefined}
                group="page"
                zoom={zoom}
                series={[{ label: 'mean', colour: 1, values: valuesOf(answer.lines, line.metric, 'mean', times), fill: true }]}
              />
            ))}
        </div>
      )}
    </Loaded>
  )
}
