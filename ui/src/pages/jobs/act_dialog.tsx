import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { get, path, post, Problem, remove } from '../../api/client'
import type { Operation, Preview } from '../../api/types'
import { duration, whole } from '../../lib/format'
import type { JobFilter } from '../../lib/job_search'
import { counted } from '../../lib/text'
import { StatusBadge } from '../../parts/badge'
import { Button } from '../../parts/button'
import { Dialog } from '../../parts/dialog'
import { Field } from '../../parts/field'
import { ProblemLine, Skeleton } from '../../parts/states'
import { Text } from '../../parts/text'
import { ACTIONS, type Action } from './actions'

export type Targets = { ids: string[] } | { filter: JobFilter }

const LOOK_MS = 400 // how often a running operation is looked at

type Props = { action: Action; targets: Targets; close: () => void; done: () => void }

/** Says exactly how many jobs an act is about, asks, and then shows how it goes and what it skipped. */
export function ActDialog({ action, targets, close, done }: Props) {
  const look = ACTIONS[action]
  const client = useQueryClient()
  const [operation, setOperation] = useState<Operation | null>(null)
  const [failed, setFailed] = useState<Problem | null>(null)
  const [busy, setBusy] = useState(false)
  const [perS, setPerS] = useState('')
  const pace = Number(perS)
  const paced = action === 'retry' && perS !== ''
  const preview = useQuery<Preview, Problem>({
    queryKey: ['preview', action, targets],
    queryFn: () => post<Preview>('jobs/actions/preview', { action, ...targets }),
    gcTime: 0,
    staleTime: Infinity,
  })

  async function run() {
    if (!preview.data) return
    setBusy(true)
    setFailed(null)
    try {
      const all = 'filter' in targets && Object.keys(targets.filter).length === 0
      setOperation(await post<Operation>('jobs/actions', { action, ...targets, expected_count: preview.data.count, all, ...(paced ? { per_s: pace } : {}) }))
    } catch (error) {
      setFailed(error as Problem)
      if ((error as Problem).code === 'count_changed') void preview.refetch()
    }
    setBusy(false)
  }

  const running = operation?.state === 'running'
  useEffect(() => {
    if (!operation) return
    if (!running) {
      done()
      void client.invalidateQueries()
      return
    }
    const timer = window.setTimeout(() => {
      get<Operation>(path('operations', operation.id)).then(setOperation, setFailed)
    }, LOOK_MS)
    return () => window.clearTimeout(timer)
  }, [operation])

  const count = preview.data?.count
  const badPace = paced && !(pace >= 0.001 && pace <= 10_000)
  const title = count === undefined ? look.name : `${look.name} ${counted(count, 'job')}`
  return (
    <Dialog title={title} close={close}>
      {operation ? (
        <Report operation={operation} />
      ) : preview.error ? (
        <ProblemLine problem={preview.error} />
      ) : !preview.data ? (
        <Skeleton rows={2} />
      ) : (
        <div className="dialog-text">
          <p>{count === 0 ? 'None of them is in a status that this applies to.' : paced ? 'They become due one after the other, with a fresh budget of attempts.' : look.says}</p>
          <p className="by-status">
            {Object.entries(preview.data.by_status).filter(([, n]) => n > 0).map(([status, n]) => (
              <span key={status}>
                <StatusBadge status={status} /> <b className="num">{whole(n)}</b>
              </span>
            ))}
          </p>
          {action === 'retry' && (count ?? 0) > 1 && (
            <Field label="Jobs per second" bad={badPace ? '0.001 … 10,000' : null} note={paced && !badPace ? `the last one is due ${duration(((count ?? 1) - 1) / pace)} from now` : 'empty: all at once'}>
              <input type="number" min="0.001" max="10000" step="any" value={perS} onChange={(event) => setPerS(event.target.value)} />
            </Field>
          )}
        </div>
      )}
      {failed && <ProblemLine problem={failed} />}
      <footer>
        {operation ? (
          <>
            {running && <Button onClick={() => void remove(path('operations', operation.id)).catch(setFailed)}>Stop</Button>}
            <Button tone="primary" onClick={close} autoFocus>
              {running ? 'Go on in the background' : 'Close'}
            </Button>
          </>
        ) : (
          <>
            <Button onClick={close}>Back</Button>
            <Button tone={look.danger ? 'danger' : 'primary'} busy={busy} disabled={!count || badPace} autoFocus onClick={() => void run()}>
              {title}
            </Button>
          </>
        )}
      </footer>
    </Dialog>
  )
}

function Report({ operation }: { operation: Operation }) {
  const skipped = Object.entries(operation.skipped)
  return (
    <div className="dialog-text" role="status">
      <progress max={operation.total || 1} value={operation.state === 'done' ? operation.total || 1 : operation.done} aria-label="Progress" />
      <p>
        {operation.state === 'running' ? 'Running' : operation.state === 'done' ? 'Done' : operation.state === 'stopped' ? 'Stopped' : 'Failed'}:{' '}
        <b className="num">{whole(operation.changed)}</b> changed
        {skipped.length === 0 && operation.state === 'done' && ', none skipped'}
      </p>
      {skipped.length > 0 && (
        <ul className="skipped">
          {skipped.map(([reason, n]) => (
            <li key={reason}>
              <b className="num">{whole(n)}</b> skipped: <Text>{SKIPPED[reason] ?? reason.replaceAll('_', ' ')}</Text>
            </li>
          ))}
        </ul>
      )}
      {operation.error && (
        <p className="bad">
          <Text>{operation.error}</Text>
        </p>
      )}
    </div>
  )
}

const SKIPPED: Record<string, string> = {
  slot_held: 'another job holds their dedupe key',
  not_found: 'gone in the meantime',
  already_finished: 'finished in the meantime',
  not_retryable: 'not failed or dead any more',
  not_pending: 'not waiting any more',
}
