import { useMemo } from 'react'
import { ratesOf, timesOf, useSeries, valuesOf } from '../api/series'
import { compact, milliseconds } from '../lib/format'
import type { Window } from '../lib/range'
import { Chart, MILLISECONDS } from './chart'
import { Loaded } from './states'

type Props = { window: Window; zoom: (fromS: number, toS: number) => void; queue?: string; all?: boolean }

const perSecond = (value: number | null) => (value === null ? '–' : `${compact(value)}/s`)

/** Throughput and latency of one queue, or of all. */
export function JobCharts({ window, zoom, queue, all }: Props) {
  const read = useSeries('queue', window, { queue })
  const times = useMemo(() => timesOf(window), [window])
  return (
    <Loaded read={read} rows={6}>
      {(answer) => <Drawn lines={answer.lines} times={times} bucketS={window.bucketS} zoom={zoom} all={all ?? false} />}
    </Loaded>
  )
}

type Drawn = { lines: Parameters<typeof ratesOf>[0]; times: number[]; bucketS: number; zoom: Props['zoom']; all: boolean }

function Drawn({ lines, times, bucketS, zoom, all }: Drawn) {
  const rates = useMemo(
    () => [
      { label: 'added', colour: 1 as const, values: ratesOf(lines, 'enqueued', times, bucketS), dash: true },
      { label: 'done', colour: 2 as const, values: ratesOf(lines, 'completed', times, bucketS), fill: true },
      { label: 'run again', colour: 3 as const, values: ratesOf(lines, 'retried', times, bucketS) },
      { label: 'dead', colour: 4 as const, values: ratesOf(lines, 'failed', times, bucketS) },
    ],
    [lines, times, bucketS],
  )
  const latencies = useMemo(
    () =>
      (['wait_ms', 'proc_ms', 'total_ms'] as const).map((metric) =>
        (['p50', 'p95', 'p99'] as const).map((part, i) => ({ label: part, colour: ([1, 5, 3] as const)[i]!, values: valuesOf(lines, metric, part, times) })),
      ),
    [lines, times],
  )
  const titles = ['Waited', 'Ran', 'Added to done']
  return (
    <div className={all ? 'charts' : 'charts wide-first'}>
      <Chart title="Throughput" times={times} series={rates} format={perSecond} group="page" zoom={zoom} height={all ? 168 : 200} />
      {latencies.map((series, i) => (
        <Chart key={titles[i]} title={titles[i]!} times={times} series={series} format={milliseconds} units={MILLISECONDS} group="page" zoom={zoom} height={all ? 168 : 132} />
      ))}
    </div>
  )
}
