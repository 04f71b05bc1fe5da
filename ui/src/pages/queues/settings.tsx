import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { ifMatch, patch, path, Problem } from '../../api/client'
import { useMay } from '../../api/queries'
import type { Queue, QueueSettings } from '../../api/types'
import { Button } from '../../parts/button'
import { Field } from '../../parts/field'
import { ProblemLine } from '../../parts/states'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'
import { say } from '../../parts/toast'

type Draft = Record<(typeof FIELDS)[number]['name'], string> & { cool_down: boolean; enabled: boolean }

const FIELDS = [
  { name: 'max_workers', label: 'Slots at most', note: 'over all workers; empty: no total; 0 stops', nullable: true },
  { name: 'max_pending', label: 'Waiting at most', note: 'more is refused; empty: no limit', nullable: true },
  { name: 'retain_done_days', label: 'Keep done, days', note: 'empty: for ever', nullable: true },
  { name: 'retain_dead_days', label: 'Keep dead, days', note: 'empty: for ever', nullable: true },
  { name: 'base_s', label: 'First retry after, s', note: '1 … 86,400; doubles', nullable: false },
  { name: 'cap_s', label: 'Retry after at most, s', note: '1 … 86,400', nullable: false },
  { name: 'jitter', label: 'Jitter', note: 'a part of it, 0 … 0.5', nullable: false },
] as const

function draftOf(queue: QueueSettings): Draft {
  const text = (value: number | null) => (value === null ? '' : String(value))
  return {
    max_workers: text(queue.max_workers),
    max_pending: text(queue.max_pending),
    retain_done_days: text(queue.retain_done_days),
    retain_dead_days: text(queue.retain_dead_days),
    base_s: text(queue.backoff.base_s),
    cap_s: text(queue.backoff.cap_s),
    jitter: text(queue.backoff.jitter),
    enabled: queue.backoff.enabled,
    cool_down: queue.cool_down,
  }
}

/** The knobs. What somebody is editing stays as it is typed, whatever arrives meanwhile. */
export function Settings({ queue }: { queue: Queue }) {
  const may = useMay('operate')
  const client = useQueryClient()
  const [draft, setDraft] = useState<Partial<Draft>>({})
  const [seen, setSeen] = useState(queue.etag) // of the settings when the draft began
  const [stale, setStale] = useState(false) // a save was refused: whoever saves now has seen the newest
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  const stored = draftOf(queue)
  const shown = { ...stored, ...draft }
  const edited = (Object.keys(draft) as (keyof Draft)[]).filter((name) => draft[name] !== stored[name])

  async function save() {
    setBusy(true)
    setFailed(null)
    const change: Record<string, unknown> = {}
    const backoff: Record<string, unknown> = {}
    for (const name of edited) {
      const value = shown[name]
      if (name === 'cool_down') change.cool_down = value
      else if (name === 'enabled') backoff.enabled = value
      else {
        const number = value === '' ? null : Number(value)
        if (name === 'base_s' || name === 'cap_s' || name === 'jitter') backoff[name] = number
        else change[name] = number
      }
    }
    try {
      const answer = await patch<QueueSettings>(path('queues', queue.name), { ...change, ...(Object.keys(backoff).length ? { backoff } : {}) }, ifMatch(stale ? queue.etag : seen))
      await client.invalidateQueries({ queryKey: ['queues'] })
      setDraft({})
      setStale(false)
      say(answer.clamped?.length ? `Saved; brought to their limit: ${answer.clamped.join(', ')}` : 'Saved')
    } catch (error) {
      const problem = error as Problem
      if (problem.code === 'precondition_failed') {
        await client.invalidateQueries({ queryKey: ['queues'] })
        const changed = 'Somebody changed the settings since you began. What you did not edit is shown as it is now; save again to apply the rest.'
        setFailed(new Problem(problem.status, problem.code, changed, problem.requestId))
        setStale(true)
      } else setFailed(problem)
    }
    setBusy(false)
  }

  const set = (name: keyof Draft, value: string | boolean) => {
    if (Object.keys(draft).length === 0) setSeen(queue.etag)
    setDraft((old) => ({ ...old, [name]: value }))
  }
  return (
    <section className="panel block" aria-label="Settings">
      <header className="panel-head">
        <h2>Settings</h2>
        <span className="faint">
          {queue.updated_at && (
            <>
              changed <Time at={queue.updated_at} />
              {queue.updated_by && (
                <>
                  {' by '}
                  <Text>{queue.updated_by}</Text>
                </>
              )}
            </>
          )}
        </span>
      </header>
      <form
        className="panel-text"
        onSubmit={(event) => {
          event.preventDefault()
          if (edited.length) void save()
        }}
      >
        <fieldset disabled={!may} className="fields knobs">
          {FIELDS.map((field) => (
            <Field key={field.name} label={field.label} note={field.note}>
              <input
                type="number"
                step="any"
                min="0"
                required={!field.nullable}
                className={edited.includes(field.name) ? 'edited' : ''}
                value={shown[field.name]}
                onChange={(event) => set(field.name, event.target.value)}
              />
            </Field>
          ))}
          <div className="field">
            <span className="label">When a job fails or is throttled</span>
            <label className="check">
              <input type="checkbox" checked={shown.enabled} onChange={(event) => set('enabled', event.target.checked)} /> wait before retries
            </label>
            <label className="check">
              <input type="checkbox" checked={shown.cool_down} onChange={(event) => set('cool_down', event.target.checked)} /> cool the queue down
            </label>
          </div>
        </fieldset>
        {failed && <ProblemLine problem={failed} />}
        {edited.length > 0 && (
          <footer className="form-foot">
            <Button onClick={() => setDraft({})}>Undo</Button>
            <Button type="submit" tone="primary" busy={busy}>
              Save {edited.length} change{edited.length === 1 ? '' : 's'}
            </Button>
          </footer>
        )}
      </form>
    </section>
  )
}
