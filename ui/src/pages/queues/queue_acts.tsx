import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { path, post } from '../../api/client'
import { useMay } from '../../api/queries'
import type { Queue } from '../../api/types'
import { counted } from '../../lib/text'
import { now } from '../../lib/time'
import { Button } from '../../parts/button'
import { Confirm } from '../../parts/dialog'
import { Text } from '../../parts/text'
import { say, sayProblem } from '../../parts/toast'

/** Pause (asks whether running jobs are told), resume, end the cool-down. */
export function QueueActs({ queue }: { queue: Queue }) {
  const may = useMay('operate')
  const client = useQueryClient()
  const [asked, setAsked] = useState(false)
  const [signal, setSignal] = useState(false)
  if (!may) return null
  const cooling = queue.throttled_until !== null && Date.parse(queue.throttled_until) > now()

  async function act(name: 'pause' | 'resume' | 'clear-cool-down', body: unknown, told: string) {
    await post(path('queues', queue.name, name), body)
    say(told)
    void client.invalidateQueries()
  }

  return (
    <span className="card-acts">
      {cooling && <Button onClick={() => void act('clear-cool-down', {}, `${queue.name} goes on`).catch(sayProblem)}>End cool-down</Button>}
      {queue.paused ? (
        <Button icon="play" onClick={() => void act('resume', {}, `${queue.name} is resumed`).catch(sayProblem)}>
          Resume
        </Button>
      ) : (
        <Button icon="pause" onClick={() => setAsked(true)}>
          Pause
        </Button>
      )}
      {asked && (
        <Confirm title={`Pause ${queue.name}`} act="Pause" close={() => setAsked(false)} run={() => act('pause', { signal }, `${queue.name} is paused`)}>
          <p>
            No job of <b><Text>{queue.name}</Text></b> is started until it is resumed. {counted(queue.counts.ready, 'job')} could run now, {counted(queue.counts.in_progress, 'job')} {queue.counts.in_progress === 1 ? 'is' : 'are'} running.
          </p>
          <label className="check">
            <input type="checkbox" checked={signal} onChange={(event) => setSignal(event.target.checked)} />
            Interrupt running jobs: they go back without losing an attempt
          </label>
        </Confirm>
      )}
    </span>
  )
}
