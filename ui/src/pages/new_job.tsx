import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { post, Problem } from '../api/client'
import { useKind, useKinds, useQueues } from '../api/queries'
import { navigate } from '../lib/hash_router'
import { sketch } from '../lib/sketch'
import { Button } from '../parts/button'
import { Dialog } from '../parts/dialog'
import { Field } from '../parts/field'
import { Json } from '../parts/json'
import { ProblemLine } from '../parts/states'
import { say } from '../parts/toast'

/** What is wrong with JSON text, or null. The server looks again, and more strictly. */
export function jsonFault(text: string): string | null {
  try {
    JSON.parse(text)
    return null
  } catch (error) {
    return error instanceof Error ? error.message : 'not JSON'
  }
}

type Answer = { id: string; outcome: string; status: string | null }

export function NewJob({ close }: { close: () => void }) {
  const client = useQueryClient()
  const kinds = useKinds().data?.items ?? []
  const queues = useQueues().data?.items ?? []
  const [kind, setKind] = useState('')
  const [payload, setPayload] = useState('{}')
  const [queue, setQueue] = useState('')
  const [delay, setDelay] = useState('')
  const [priority, setPriority] = useState('')
  const [key, setKey] = useState('')
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  const fault = jsonFault(payload)
  const known = kinds.find((one) => one.kind === kind.trim())
  const detail = useKind(kind.trim(), known?.declared === true).data
  const schema = known?.declared ? detail?.declaration?.schema : null
  const usual = known?.queues[0]?.queue ?? detail?.declaration?.queue

  async function add() {
    setBusy(true)
    setFailed(null)
    const fields: Record<string, unknown> = { kind: kind.trim() }
    if (queue.trim()) fields.queue = queue.trim()
    if (delay) fields.delay = Number(delay)
    if (priority) fields.priority = Number(priority)
    if (key) fields.dedupe_key = key
    // The payload goes as it was typed, so that large numbers stay what they are.
    const body = `${JSON.stringify(fields).slice(0, -1)},"payload":${payload}}`
    try {
      const answer = await post<Answer>('jobs', body)
      say(answer.outcome === 'deduped' ? `Not added: job ${answer.id} holds the key` : 'Added', answer.outcome === 'deduped')
      void client.invalidateQueries()
      close()
      navigate(`/jobs/${answer.id}`)
    } catch (error) {
      setFailed(error as Problem)
      setBusy(false)
    }
  }

  return (
    <Dialog title="New job" close={close} wide>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void add()
        }}
      >
        <div className="fields">
          <Field label="Kind" bad={failed?.field === 'kind' ? failed.detail : null}>
            <input type="text" list="kinds" required value={kind} autoFocus autoComplete="off" onChange={(event) => setKind(event.target.value)} />
            <datalist id="kinds">
              {kinds.map((one) => (
                <option key={one.kind} value={one.kind} />
              ))}
            </datalist>
          </Field>
          <Field label="Queue" note={usual ? `jobs of this kind wait in ${usual}` : 'empty: as the kind is routed'}>
            <input type="text" list="queues" value={queue} autoComplete="off" onChange={(event) => setQueue(event.target.value)} />
            <datalist id="queues">
              {queues.map((one) => (
                <option key={one.name} value={one.name} />
              ))}
            </datalist>
          </Field>
          <Field label="Payload" whole bad={fault}>
            <textarea rows={8} value={payload} spellCheck={false} onChange={(event) => setPayload(event.target.value)} />
          </Field>
          {schema && Object.keys(schema).length > 0 && (
            <details className="field whole">
              <summary>What {kind.trim()} takes</summary>
              <Json text={JSON.stringify(schema)} />
              <Button onClick={() => setPayload(sketch(schema))}>Begin with what it requires</Button>
            </details>
          )}
          <Field label="Delay, s" note="empty: at once">
            <input type="number" min="0" step="any" value={delay} onChange={(event) => setDelay(event.target.value)} />
          </Field>
          <Field label="Priority" note="lower runs first">
            <input type="number" min="-1000" max="1000" value={priority} placeholder="0" onChange={(event) => setPriority(event.target.value)} />
          </Field>
          <Field label="Dedupe key" note="one job with it at a time">
            <input type="text" maxLength={255} value={key} onChange={(event) => setKey(event.target.value)} />
          </Field>
        </div>
        {failed && <ProblemLine problem={failed} />}
        <footer>
          <Button onClick={close}>Back</Button>
          <Button type="submit" tone="primary" busy={busy} disabled={!kind.trim() || fault !== null}>
            Add
          </Button>
        </footer>
      </form>
    </Dialog>
  )
}
