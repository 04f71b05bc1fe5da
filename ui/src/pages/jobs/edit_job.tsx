import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { patch, path } from '../../api/client'
import { useQueues } from '../../api/queries'
import type { JobDetail } from '../../api/types'
import { Confirm } from '../../parts/dialog'
import { Field } from '../../parts/field'
import { say } from '../../parts/toast'

/** Changes what a waiting job allows to change. The fields are as they were when the dialog opened. */
export function EditJob({ job, close }: { job: JobDetail; close: () => void }) {
  const client = useQueryClient()
  const queues = useQueues().data?.items ?? []
  const [priority, setPriority] = useState(String(job.priority))
  const [most, setMost] = useState(String(job.max_attempts))
  const [queue, setQueue] = useState(job.queue)
  const [runAt, setRunAt] = useState('')
  const change: Record<string, unknown> = {}
  if (priority !== String(job.priority)) change.priority = Number(priority)
  if (most !== String(job.max_attempts)) change.max_attempts = Number(most)
  if (queue !== job.queue) change.queue = queue
  if (runAt) change.run_at = new Date(runAt).toISOString()
  return (
    <Confirm
      title="Change this job"
      act="Save"
      ready={Object.keys(change).length > 0}
      close={close}
      run={async () => {
        await patch(path('jobs', job.id), change)
        say('Changed')
        void client.invalidateQueries()
      }}
    >
      <div className="fields">
        <Field label="Priority" note="lower runs first">
          <input type="number" value={priority} onChange={(event) => setPriority(event.target.value)} />
        </Field>
        <Field label="Attempts at most">
          <input type="number" min="1" value={most} onChange={(event) => setMost(event.target.value)} />
        </Field>
        <Field label="Queue">
          <input type="text" list="queue-names" value={queue} onChange={(event) => setQueue(event.target.value)} />
          <datalist id="queue-names">
            {queues.map((one) => (
              <option key={one.name} value={one.name} />
            ))}
          </datalist>
        </Field>
        <Field label="Run at" note="local time; empty leaves it">
          <input type="datetime-local" step="1" value={runAt} onChange={(event) => setRunAt(event.target.value)} />
        </Field>
      </div>
    </Confirm>
  )
}
