import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { ifMatch, patch, path, post, Problem } from '../../api/client'
import { useKinds } from '../../api/queries'
import type { Fire, Listed, Schedule } from '../../api/types'
import { navigate } from '../../lib/hash_router'
import { Button } from '../../parts/button'
import { Dialog } from '../../parts/dialog'
import { Field } from '../../parts/field'
import { ProblemLine } from '../../parts/states'
import { say } from '../../parts/toast'
import { jsonFault } from '../new_job'
import { Fires } from './fires'

const REST_MS = 300 // a pause in typing of this length asks for a preview
const ZONES: string[] = ['UTC', ...Intl.supportedValuesOf('timeZone').filter((zone) => zone !== 'UTC')]

type Draft = {
  name: string
  kind: string
  expr: string
  zone: string
  payload: string
  queue: string
  gap: string
  fold: string
  misfire: string
  misfire_grace_s: string
  priority: string
  max_attempts: string
  jitter_s: string
  skip_if_running: boolean
}

function draftOf(schedule: Schedule | null): Draft {
  return {
    name: schedule?.name ?? '',
    kind: schedule?.kind ?? '',
    expr: schedule?.expr ?? '0 * * * *',
    zone: schedule?.zone ?? 'UTC',
    payload: JSON.stringify(schedule?.payload ?? {}, null, 2),
    queue: schedule?.queue ?? '',
    gap: schedule?.gap ?? 'shift',
    fold: schedule?.fold ?? 'first',
    misfire: schedule?.misfire ?? 'latest',
    misfire_grace_s: schedule?.misfire_grace_s == null ? '' : String(schedule.misfire_grace_s),
    priority: String(schedule?.priority ?? 0),
    max_attempts: schedule?.max_attempts == null ? '' : String(schedule.max_attempts),
    jitter_s: String(schedule?.jitter_s ?? 0),
    skip_if_running: schedule?.skip_if_running ?? false,
  }
}

const NULLABLE = new Set(['queue', 'misfire_grace_s', 'max_attempts'])
const NUMBERS = new Set(['misfire_grace_s', 'priority', 'max_attempts', 'jitter_s'])

function valueOf(name: keyof Draft, draft: Draft): unknown {
  const value = draft[name]
  if (value === '' && NULLABLE.has(name)) return null
  if (name === 'payload') return JSON.parse(draft.payload)
  return NUMBERS.has(name) ? Number(value) : value
}

/** Makes or edits a schedule; the next ticks of what is typed are shown while it is typed. */
export function ScheduleForm({ schedule, close }: { schedule: Schedule | null; close: () => void }) {
  const client = useQueryClient()
  const kinds = useKinds().data?.items.map((one) => one.kind) ?? []
  const [before] = useState(() => draftOf(schedule))
  const [seen] = useState(schedule?.etag ?? '') // of the schedule as the form began with it
  const [draft, setDraft] = useState(before)
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  const asked = useRested({ expr: draft.expr, zone: draft.zone, gap: draft.gap, fold: draft.fold })
  const preview = useQuery<Listed<Fire> & { in_words: string }, Problem>({
    queryKey: ['preview', asked],
    queryFn: () => post<Listed<Fire> & { in_words: string }>('schedules/preview', { ...asked, n: 6 }),
    retry: false,
    staleTime: 30_000,
  })
  const set = (name: keyof Draft) => (event: { target: { value: string } }) => setDraft((old) => ({ ...old, [name]: event.target.value }))
  const changed = (Object.keys(draft) as (keyof Draft)[]).filter((name) => name !== 'name' && draft[name] !== before[name])
  const payloadFault = jsonFault(draft.payload)
  const hidden = changed.includes('payload') && draft.payload.includes('[redacted]')
  const exprFault = preview.error?.code === 'validation' && preview.error.field !== 'zone' ? preview.error.detail : null
  const zoneFault = preview.error?.field === 'zone' ? preview.error.detail : null

  async function save() {
    setBusy(true)
    setFailed(null)
    try {
      if (schedule) await patch(path('schedules', schedule.name), Object.fromEntries(changed.map((name) => [name, valueOf(name, draft)])), ifMatch(seen))
      else {
        const given = (Object.keys(draft) as (keyof Draft)[]).filter((name) => ['name', 'kind', 'expr', 'zone', 'payload'].includes(name) || draft[name] !== before[name])
        await post('schedules', Object.fromEntries(given.map((name) => [name, valueOf(name, draft)])))
      }
      say('Saved')
      void client.invalidateQueries({ queryKey: ['schedules'] })
      close()
      if (!schedule) navigate(`/schedules/${encodeURIComponent(draft.name)}`)
    } catch (error) {
      setFailed(error as Problem)
      setBusy(false)
    }
  }

  const ready = draft.name !== '' && draft.kind !== '' && !payloadFault && !hidden && !exprFault && !zoneFault && (!schedule || changed.length > 0)
  return (
    <Dialog title={schedule ? `Edit ${schedule.name}` : 'New schedule'} close={close} wide>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void save()
        }}
      >
        <div className="fields">
          {!schedule && (
            <Field label="Name">
              <input type="text" value={draft.name} autoFocus required onChange={set('name')} />
            </Field>
          )}
          <Field label="Kind">
            <input type="text" list="schedule-kinds" value={draft.kind} required autoComplete="off" onChange={set('kind')} />
            <datalist id="schedule-kinds">
              {kinds.map((kind) => (
                <option key={kind} value={kind} />
              ))}
            </datalist>
          </Field>
          <Field label="Expression" note="minute hour day month weekday" bad={exprFault}>
            <input type="text" className="mono" value={draft.expr} spellCheck={false} onChange={set('expr')} />
          </Field>
          <Field label="Zone" bad={zoneFault}>
            <input type="text" list="zones" value={draft.zone} onChange={set('zone')} />
            <datalist id="zones">
              {ZONES.map((zone) => (
                <option key={zone} value={zone} />
              ))}
            </datalist>
          </Field>
        </div>
        <div className="preview" aria-live="polite">
          <h3>Next ticks</h3>
          {preview.data && !exprFault && !zoneFault && <p>{preview.data.in_words}</p>}
          {preview.data && !exprFault && !zoneFault ? <Fires fires={preview.data.items} zone={draft.zone} /> : <p className="faint">{exprFault || zoneFault ? 'None, as the expression cannot be read' : '…'}</p>}
        </div>
        <div className="fields">
          <Field label="Payload" whole bad={payloadFault ?? (hidden ? 'A value reads [redacted]: what is hidden would be lost' : null)}>
            <textarea rows={5} value={draft.payload} spellCheck={false} onChange={set('payload')} />
          </Field>
        </div>
        <details>
          <summary>More settings</summary>
          <div className="fields">
            <Field label="Queue" note="empty: as the kind is routed">
              <input type="text" value={draft.queue} onChange={set('queue')} />
            </Field>
            <Field label="When the clock skips it">
              <select value={draft.gap} onChange={set('gap')}>
                <option value="shift">fire right after the gap</option>
                <option value="skip">leave it out</option>
              </select>
            </Field>
            <Field label="When the hour comes twice">
              <select value={draft.fold} onChange={set('fold')}>
                <option value="first">the first time</option>
                <option value="second">the second time</option>
                <option value="both">both times</option>
              </select>
            </Field>
            <Field label="Late ticks" note="latest, skip or all(n)">
              <input type="text" value={draft.misfire} onChange={set('misfire')} />
            </Field>
            <Field label="Late at most, s" note="empty: as above says">
              <input type="number" min="0" value={draft.misfire_grace_s} onChange={set('misfire_grace_s')} />
            </Field>
            <Field label="Spread, s" note="up to so much later, at random">
              <input type="number" min="0" max="3600" value={draft.jitter_s} onChange={set('jitter_s')} />
            </Field>
            <Field label="Priority" note="lower runs first">
              <input type="number" min="-1000" max="1000" value={draft.priority} onChange={set('priority')} />
            </Field>
            <Field label="Attempts at most" note="empty: as the handler says">
              <input type="number" min="1" max="1000" value={draft.max_attempts} onChange={set('max_attempts')} />
            </Field>
            <div className="field">
              <span className="label">Overlap</span>
              <label className="check">
                <input type="checkbox" checked={draft.skip_if_running} onChange={(event) => setDraft((old) => ({ ...old, skip_if_running: event.target.checked }))} /> none while the last job waits or runs
              </label>
            </div>
          </div>
        </details>
        {failed && <ProblemLine problem={failed} />}
        <footer>
          <Button onClick={close}>Back</Button>
          <Button type="submit" tone="primary" busy={busy} disabled={!ready}>
            Save
          </Button>
        </footer>
      </form>
    </Dialog>
  )
}

function useRested<A>(value: A): A {
  const text = JSON.stringify(value)
  const [rested, setRested] = useState(value)
  useEffect(() => {
    const timer = window.setTimeout(() => setRested(JSON.parse(text) as A), REST_MS)
    return () => window.clearTimeout(timer)
  }, [text])
  return rested
}
