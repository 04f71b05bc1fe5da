import type { ReactNode } from 'react'
import { Audit } from './audit'
import { Dead } from './jobs/dead'
import { JobPage } from './jobs/job'
import { Jobs } from './jobs/jobs'
import { Retries, Scheduled } from './jobs/waiting'
import { KindPage } from './kinds/kind'
import { Kinds } from './kinds/kinds'
import { Limits } from './limits'
import { Metrics } from './metrics'
import { Overview } from './overview'
import { QueuePage } from './queues/queue'
import { Queues } from './queues/queues'
import { SchedulePage } from './schedules/schedule'
import { Schedules } from './schedules/schedules'
import { Store } from './store'
import { Workers } from './workers'

type Params = Record<string, string | undefined>

function named(params: Params): string {
  const part = params.name ?? ''
  try {
    return decodeURIComponent(part)
  } catch {
    return part // a `%` that somebody typed
  }
}

/** What is shown where. */
export const PAGES: { path: string; render: (params: Params) => ReactNode }[] = [
  { path: '/', render: () => <Overview /> },
  { path: '/jobs', render: () => <Jobs /> },
  { path: '/jobs/:name', render: (params) => <JobPage key={named(params)} id={named(params)} /> },
  { path: '/scheduled', render: () => <Scheduled /> },
  { path: '/retries', render: () => <Retries /> },
  { path: '/dead', render: () => <Dead /> },
  { path: '/queues', render: () => <Queues /> },
  { path: '/queues/:name', render: (params) => <QueuePage key={named(params)} name={named(params)} /> },
  { path: '/kinds', render: () => <Kinds /> },
  { path: '/kinds/:name', render: (params) => <KindPage key={named(params)} name={named(params)} /> },
  { path: '/limits', render: () => <Limits /> },
  { path: '/workers', render: () => <Workers /> },
  { path: '/schedules', render: () => <Schedules /> },
  { path: '/schedules/:name', render: (params) => <SchedulePage key={named(params)} name={named(params)} /> },
  { path: '/metrics', render: () => <Metrics /> },
  { path: '/store', render: () => <Store /> },
  { path: '/audit', render: () => <Audit /> },
]
