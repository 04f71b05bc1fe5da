import { path } from '../../api/client'
import { going, useRead } from '../../api/queries'
import type { Page, Schedule, Tick } from '../../api/types'
import { duration } from '../../lib/format'
import { address } from '../../lib/hash_router'
import { useTitle } from '../../lib/title'
import { Badge } from '../../parts/badge'
import { Icon } from '../../parts/icons'
import { Facts, type Fact } from '../../parts/facts'
import { Json } from '../../parts/json'
import { PageHead } from '../../parts/page_head'
import { Empty, Loaded } from '../../parts/states'
import { Table, type Column } from '../../parts/table'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'
import { JobLink } from '../jobs/columns'
import { ScheduleActs } from './acts'
import { Fires } from './fires'
import { ScheduleState, When } from './schedules'

export function SchedulePage({ name }: { name: string }) {
  useTitle(`${name} · Schedules`)
  const read = useRead<Schedule>(['schedules', name], path('schedules', name), undefined, { keep: false, enabled: () => !going.has(name) })
  return <Loaded read={read}>{(schedule) => <Shown schedule={schedule} />}</Loaded>
}

function Shown({ schedule }: { schedule: Schedule }) {
  const facts: Fact[] = [
    ['Kind', <a href={`#${address('/jobs', { q: `kind:${schedule.kind}` })}`}><Text>{schedule.kind}</Text></a>],
    ['Queue', schedule.queue ? <Text>{schedule.queue}</Text> : <span className="faint">as the kind is routed</span>],
    ['Last fired', <Time at={schedule.last_fired_at} none="not yet" />],
    ['Next', <Time at={schedule.next_fire_at} none="never" />],
    ['Late ticks', <Text>{schedule.misfire + (schedule.misfire_grace_s === null ? '' : `, at most ${duration(schedule.misfire_grace_s)} late`)}</Text>],
    ['Clock changes', `gap ${schedule.gap}, fold ${schedule.fold}`],
    ['Overlap', schedule.skip_if_running ? 'none' : 'allowed'],
  ]
  if (schedule.jitter_s) facts.push(['Spread', `up to ${duration(schedule.jitter_s)}`])
  if (schedule.priority) facts.push(['Priority', schedule.priority])
  if (schedule.max_attempts !== null) facts.push(['Attempts at most', schedule.max_attempts])
  if (schedule.starts_at) facts.push(['From', <Time at={schedule.starts_at} />])
  if (schedule.ends_at) facts.push(['Until', <Time at={schedule.ends_at} />])
  facts.push(['Changed', <><Time at={schedule.updated_at} /> <span className="faint"><Text>{schedule.updated_by && `by ${schedule.updated_by}`}</Text></span></>])
  return (
    <>
      <PageHead
        title={
          <span className="job-title">
            <Text>{schedule.name}</Text> <ScheduleState schedule={schedule} />
          </span>
        }
        note={<When schedule={schedule} />}
      >
        <ScheduleActs schedule={schedule} />
      </PageHead>
      {(schedule.why_silent || schedule.last_error) && (
        <ul className="banners" aria-label="What needs a look">
          {[schedule.why_silent, schedule.last_error].filter(Boolean).map((text) => (
            <li key={text} className="warning">
              <Icon name="warn" />
              <Text>{text}</Text>
            </li>
          ))}
        </ul>
      )}
      <div className="job">
        <div className="job-main">
          <section className="panel">
            <header className="panel-head">
              <h2>Next ticks</h2>
            </header>
            <div className="panel-text">
              <Fires fires={schedule.next_fires} zone={schedule.zone} />
            </div>
          </section>
          <Differences schedule={schedule} />
          <section className="panel">
            <header className="panel-head">
              <h2>Payload</h2>
            </header>
            <Json text={JSON.stringify(schedule.payload)} />
          </section>
          <Ticks name={schedule.name} />
        </div>
        <div className="job-side">
          <Facts facts={facts} label="Settings" />
        </div>
      </div>
    </>
  )
}

function Differences({ schedule }: { schedule: Schedule }) {
  const entries = Object.entries(schedule.differences)
  if (!entries.length) return null
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Different from code</h2>
      </header>
      <ul className="differences">
        {entries.map(([name, { declared, stored }]) => (
          <li key={name}>
            <b>{name}</b>
            <code>
              <del><Text>{JSON.stringify(declared)}</Text></del> <ins><Text>{JSON.stringify(stored)}</Text></ins>
            </code>
            {schedule.edited[name] && (
              <span className="faint">
                <Text>{schedule.edited[name].by}</Text>, <Time at={schedule.edited[name].at} />
              </span>
            )}
          </li>
        ))}
      </ul>
    </section>
  )
}

const OUTCOMES: Record<string, { tone: string; mark: string }> = { fired: { tone: 'good', mark: 'tick' }, skipped: { tone: 'wait', mark: 'ring' }, error: { tone: 'bad', mark: 'bang' } }

const COLUMNS: Column<Tick>[] = [
  { id: 'at', head: 'Tick', cell: (tick) => <><Time at={tick.fire_at} />{tick.through && <> … <Time at={tick.through} /></>}</> },
  { id: 'outcome', head: 'Outcome', cell: (tick) => <Badge {...(OUTCOMES[tick.outcome] ?? OUTCOMES.skipped!)}>{tick.outcome}</Badge> },
  { id: 'reason', head: 'Why', grow: true, cell: (tick) => <span className="soft"><Text>{tick.reason}</Text></span> },
  { id: 'job', head: 'Job', cell: (tick) => (tick.job_id ? <JobLink id={tick.job_id} short /> : null) },
]

function Ticks({ name }: { name: string }) {
  const read = useRead<Page<Tick>>(['ticks', name], path('schedules', name, 'ticks'), { limit: 30 }, { enabled: () => !going.has(name) })
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Ticks</h2>
      </header>
      <Loaded read={read} rows={4}>
        {(page) => (page.items.length ? <Table label="Ticks" columns={COLUMNS} rows={page.items} keyOf={(tick) => tick.fire_at} /> : <Empty title="It has not fired yet" />)}
      </Loaded>
    </section>
  )
}
