import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { path, post } from '../../api/client'
import { removeGoing, useMay } from '../../api/queries'
import type { Schedule } from '../../api/types'
import { navigate } from '../../lib/hash_router'
import { Button } from '../../parts/button'
import { Confirm } from '../../parts/dialog'
import { say, sayProblem } from '../../parts/toast'
import { ScheduleForm } from './form'

type Asked = 'trigger' | 'edit' | 'reset' | 'remove'

export function ScheduleActs({ schedule, short }: { schedule: Schedule; short?: boolean }) {
  const may = useMay('operate')
  const client = useQueryClient()
  const [asked, setAsked] = useState<Asked | null>(null)
  const [force, setForce] = useState(false)
  if (!may) return null
  const { name } = schedule
  const again = () => client.invalidateQueries()
  const close = () => setAsked(null)

  async function trigger() {
    const answer = await post<{ id: string; outcome: string }>(path('schedules', name, 'trigger'), { force })
    say(answer.outcome === 'deduped' ? `Not added: job ${answer.id} still waits or runs` : `Added job ${answer.id}`, answer.outcome === 'deduped')
    void again()
  }

  async function turn(on: boolean) {
    await post(path('schedules', name, on ? 'enable' : 'disable'))
    say(`${name} is ${on ? 'enabled' : 'disabled'}`)
    void again()
  }

  return (
    <span className="row-acts">
      <Button icon="bolt" onClick={() => setAsked('trigger')}>
        Trigger
      </Button>
      {!short && (
        <Button icon="edit" onClick={() => setAsked('edit')}>
          Edit
        </Button>
      )}
      <Button onClick={() => void turn(!schedule.enabled).catch(sayProblem)}>{schedule.enabled ? 'Disable' : 'Enable'}</Button>
      {!short && Object.keys(schedule.differences).length > 0 && <Button onClick={() => setAsked('reset')}>Reset to code</Button>}
      {!short && (
        <Button tone="danger" icon="trash" onClick={() => setAsked('remove')}>
          Remove
        </Button>
      )}
      {asked === 'trigger' && (
        <Confirm title={`Trigger ${name}`} act="Add one job now" close={close} run={trigger}>
          <p>One job is added now. The next tick stays as it is.</p>
          {schedule.skip_if_running && (
            <label className="check">
              <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} /> also while its last job waits or runs
            </label>
          )}
        </Confirm>
      )}
      {asked === 'edit' && <ScheduleForm schedule={schedule} close={close} />}
      {asked === 'reset' && (
        <Confirm
          title={`Reset ${name} to code`}
          act="Reset"
          close={close}
          run={async () => {
            await post(path('schedules', name, 'reset'))
            say(`${name} is as code declares it`)
            void again()
          }}
        >
          <p>These settings become again what code declares: {Object.keys(schedule.edited).join(', ')}.</p>
        </Confirm>
      )}
      {asked === 'remove' && (
        <Confirm
          title={`Remove ${name}`}
          act="Remove"
          danger
          close={close}
          run={async () => {
            await removeGoing(name, path('schedules', name))
            navigate('/schedules', { replace: true })
            say(`${name} is removed`)
            void again()
          }}
        >
          <p>It fires no more; its jobs stay. If code still declares it, it comes back with the next worker that starts.</p>
        </Confirm>
      )}
    </span>
  )
}
