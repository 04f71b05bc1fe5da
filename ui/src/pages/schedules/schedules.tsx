import { useState } from 'react'
import { useMay, useSchedules } from '../../api/queries'
import type { Schedule } from '../../api/types'
import { navigate } from '../../lib/hash_router'
import { Badge } from '../../parts/badge'
import { Button } from '../../parts/button'
import { PageHead } from '../../parts/page_head'
import { Empty, Loaded } from '../../parts/states'
import { Table, type Column } from '../../parts/table'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'
import { ScheduleActs } from './acts'
import { ScheduleForm } from './form'

const COLUMNS: Column<Schedule>[] = [
  { id: 'name', head: 'Schedule', cell: (one) => <a href={`#/schedules/${encodeURIComponent(one.name)}`}><strong><Text>{one.name}</Text></strong></a> },
  { id: 'state', head: 'State', cell: (one) => <ScheduleState schedule={one} /> },
  { id: 'expr', head: 'When', cell: (one) => <When schedule={one} /> },
  { id: 'kind', head: 'Kind', grow: true, hide: 'narrow', cell: (one) => <span className="soft"><Text>{one.kind}</Text></span> },
  { id: 'last', head: 'Last', right: true, hide: 'narrow', cell: (one) => <Last schedule={one} /> },
  { id: 'next', head: 'Next', right: true, cell: (one) => <Time at={one.next_fire_at} none="never" /> },
  { id: 'acts', head: <span className="visually-hidden">Acts</span>, right: true, cell: (one) => <ScheduleActs schedule={one} short /> },
]

export function Schedules() {
  const read = useSchedules()
  const may = useMay('operate')
  const [making, setMaking] = useState(false)
  return (
    <>
      <PageHead title="Schedules">
        {may && (
          <Button icon="add" onClick={() => setMaking(true)}>
            New schedule
          </Button>
        )}
      </PageHead>
      <section className="panel">
        <Loaded read={read}>
          {(schedules) =>
            schedules.items.length === 0 ? (
              <Empty title="No schedules yet">Declare one in code with its handler, or make one here.</Empty>
            ) : (
              <Table label="Schedules" columns={COLUMNS} rows={schedules.items} keyOf={(one) => one.name} open={(one) => navigate(`/schedules/${encodeURIComponent(one.name)}`)} />
            )
          }
        </Loaded>
      </section>
      {making && <ScheduleForm schedule={null} close={() => setMaking(false)} />}
    </>
  )
}

export function When({ schedule }: { schedule: Schedule }) {
  return (
    <span className="when">
      {schedule.in_words && <Text>{schedule.in_words}</Text>} <code className={schedule.in_words ? 'faint' : ''}><Text>{schedule.expr}</Text></code> <span className="faint"><Text>{schedule.zone}</Text></span>
    </span>
  )
}

const STATES: Record<string, { tone: string; mark: string }> = {
  active: { tone: 'good', mark: 'tick' },
  disabled: { tone: 'wait', mark: 'bars' },
  invalid: { tone: 'bad', mark: 'bang' },
  finished: { tone: 'wait', mark: 'ring' },
}

export function ScheduleState({ schedule }: { schedule: Schedule }) {
  const look = STATES[schedule.state] ?? { tone: 'wait', mark: 'ring' }
  return (
    <span className="statuses">
      <Badge tone={look.tone} mark={look.mark}>
        {schedule.state}
      </Badge>
      {schedule.consecutive_errors > 0 && (
        <Badge tone="bad" mark="bang">
          {schedule.consecutive_errors} error{schedule.consecutive_errors === 1 ? '' : 's'}
        </Badge>
      )}
      {Object.keys(schedule.differences).length > 0 && <Badge tone="later">edited</Badge>}
      {schedule.undeclared && <Badge tone="warn">undeclared</Badge>}
    </span>
  )
}

function Last({ schedule }: { schedule: Schedule }) {
  return (
    <>
      {schedule.last_outcome && schedule.last_outcome !== 'fired' && <span className="warn">{schedule.last_outcome} </span>}
      <Time at={schedule.last_fired_at} none="not yet" />
    </>
  )
}
