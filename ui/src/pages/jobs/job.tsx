import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { apiUrl, path, post } from '../../api/client'
import { removeGoing, useJob, useMay } from '../../api/queries'
import type { Act, JobDetail } from '../../api/types'
import { bytes, duration, whole } from '../../lib/format'
import { address, navigate, peekAt } from '../../lib/hash_router'
import { useKeys } from '../../lib/keys'
import { useTitle } from '../../lib/title'
import { JobStatus, StatusBadge } from '../../parts/badge'
import { Button, LinkButton } from '../../parts/button'
import { Copy } from '../../parts/copy'
import { Confirm } from '../../parts/dialog'
import { Facts, type Fact } from '../../parts/facts'
import { Json } from '../../parts/json'
import { PageHead } from '../../parts/page_head'
import { Loaded } from '../../parts/states'
import { Text } from '../../parts/text'
import { Age, Time } from '../../parts/time'
import { say } from '../../parts/toast'
import { ACTIONS, actsOn, type Action } from './actions'
import { EditJob } from './edit_job'
import { Explain } from './explain'
import { Log } from './log'
import { Attempts, Timeline } from './timeline'

export function JobPage({ id }: { id: string }) {
  const read = useJob(id)
  return <Loaded read={read}>{(job) => <JobView job={job} left={() => navigate('/jobs', { replace: true })} />}</Loaded>
}

type View = { job: JobDetail; beside?: boolean; left: () => void }

/** Everything about a job and what can be done to it, as a page or `beside` one. `left`: it is not there any more. */
export function JobView({ job, beside, left }: View) {
  const may = useMay('operate')
  const [asked, setAsked] = useState<Action | 'edit' | null>(null)
  const acts = may ? actsOn(job) : []
  useKeys(Object.fromEntries(acts.filter((act) => ACTIONS[act].key).map((act) => [ACTIONS[act].key, () => setAsked(act)])))
  const broken = job.status === 'failed' || job.status === 'dead' // then what went wrong is what one came for
  const waits = job.status === 'pending' || job.status === 'failed'
  useTitle(`${job.kind} …${job.id.slice(-8)}`)
  return (
    <>
      <PageHead
        as={beside ? 'h2' : 'h1'}
        title={
          <span className="job-title">
            <Text>{job.kind}</Text> <JobStatus job={job} />
          </span>
        }
        note={
          <span className="job-id mono">
            {job.id}
            <Copy text={() => job.id} label="Copy the id" />
          </span>
        }
      >
        {acts.map((act) => (
          <Button key={act} icon={ACTIONS[act].icon} tone={ACTIONS[act].danger ? 'danger' : 'plain'} onClick={() => setAsked(act)}>
            {ACTIONS[act].name}
          </Button>
        ))}
        {may && waits && (
          <Button icon="edit" onClick={() => setAsked('edit')}>
            Change
          </Button>
        )}
      </PageHead>
      {job.progress && job.status === 'in_progress' && <ProgressBar job={job} />}
      <div className={beside ? 'job beside' : 'job'}>
        <div className="job-main">
          {job.status !== 'done' && <Explain job={job} />}
          {beside && <JobFacts job={job} />}
          {broken && <Attempts job={job} />}
          <Payload job={job} />
          {!broken && <Attempts job={job} />}
          <Log job={job} />
        </div>
        <div className="job-side">
          {!beside && <JobFacts job={job} />}
          <Timeline job={job} />
          <Family job={job} />
        </div>
      </div>
      {asked === 'edit' ? <EditJob job={job} close={() => setAsked(null)} /> : asked && <AskOne job={job} action={asked} close={() => setAsked(null)} left={left} />}
    </>
  )
}

function Payload({ job }: { job: JobDetail }) {
  if (job.payload_hidden)
    return (
      <section className="panel">
        <header className="panel-head">
          <h2>Payload</h2>
          <span className="faint num">{bytes(job.payload_bytes)}</span>
        </header>
        <p className="panel-text soft">The code of this kind hides payloads, and what errors say.</p>
      </section>
    )
  const said = job.payload.includes(REDACTED) ? 'Copied, without the secrets in it' : 'Copied'
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Payload</h2>
        <span className="faint num">{bytes(job.payload_bytes)}</span>
        <span className="panel-acts">
          {!job.payload_cut && (
            <Copy text={() => job.payload} said={said}>
              Copy
            </Copy>
          )}
          <Copy text={() => enqueueLine(job)} said={said}>
            CLI
          </Copy>
          {!job.payload_cut && (
            <Copy text={() => curlLine(job)} said={said}>
              curl
            </Copy>
          )}
          <LinkButton tone="quiet" icon="save" download href={apiUrl(path('jobs', job.id, 'payload'))}>
            Download
          </LinkButton>
        </span>
      </header>
      <Json text={job.payload} />
      {job.payload_cut && <p className="panel-text soft">Its first {bytes(new TextEncoder().encode(job.payload).length)}. Download it to see the rest.</p>}
    </section>
  )
}

const REDACTED = '"[redacted]"'

function ProgressBar({ job }: { job: JobDetail }) {
  const { current, total, message, at } = job.progress!
  return (
    <section className="panel progress" aria-label="Progress">
      <progress max={total ?? 1} value={total ? current : undefined} aria-label="Progress" />
      <p className="num">
        <b>{whole(current)}</b>
        {total !== null && ` of ${whole(total)}`}
        {message && (
          <span className="soft">
            {' · '}
            <Text>{message}</Text>
          </span>
        )}
        <span className="faint">
          {' · '}
          <Time at={at} />
        </span>
      </p>
    </section>
  )
}

function JobFacts({ job }: { job: JobDetail }) {
  const facts: Fact[] = [
    ['Kind', <a href={`#/kinds/${encodeURIComponent(job.kind)}`}><Text>{job.kind}</Text></a>],
    ['Queue', <a href={`#/queues/${encodeURIComponent(job.queue)}`}><Text>{job.queue}</Text></a>],
    ['Attempts', <span className="num">{job.attempts} of {job.max_attempts}{job.crashes > 0 && <span className="bad"> · crashed {job.crashes}×</span>}</span>],
    ['Priority', <span className="num">{job.priority}</span>],
    ['Added', <Time at={job.enqueued_at} exact />],
    [job.status === 'failed' || job.status === 'pending' ? 'Due' : 'Was due', <Time at={job.scheduled_at} exact />],
  ]
  if (job.started_at) facts.push(['Started', <Time at={job.started_at} exact />])
  if (job.completed_at) facts.push(['Ended', <Time at={job.completed_at} exact />])
  if (job.started_at && job.completed_at && job.status === 'done') facts.push(['Ran for', duration((Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000)])
  if (job.dead_reason) facts.push(['Dead because', <span className="bad">{job.dead_reason}</span>])
  if (job.expires_at) facts.push(['Expires', <Time at={job.expires_at} exact />])
  if (job.worker) facts.push(['Worker', <a href="#/workers"><Text>{job.worker}</Text></a>])
  if (job.process_id) facts.push(['Slot', <span className="mono"><Text>{job.process_id}</Text></span>])
  if (job.heartbeat_at) facts.push(['Last beat', <span><Age since={job.heartbeat_at} warnS={15} badS={30} /> ago</span>])
  if (job.cancel_requested_at) facts.push(['Stop asked', <Time at={job.cancel_requested_at} exact />])
  if (job.dedupe_key) facts.push(['Key', <a className="mono" href={`#${address('/jobs', { q: `key:"${job.dedupe_key}"` })}`}><Text>{job.dedupe_key}</Text></a>])
  if (job.schedule) facts.push(['Schedule', <a href={`#/schedules/${encodeURIComponent(job.schedule)}`}><Text>{job.schedule}</Text></a>])
  if (job.tags.length) facts.push(['Tags', <span className="tags">{job.tags.map((tag) => <a key={tag} className="chip" href={`#${address('/jobs', { q: `tag:"${tag}"` })}`}><Text>{tag}</Text></a>)}</span>])
  facts.push(['Fence', <span className="num">{job.fence}</span>])
  if (job.trace?.traceparent) facts.push(['Trace', <span className="mono"><Text>{job.trace.traceparent}</Text></span>])
  return <Facts facts={facts} label="Fields" />
}

function Family({ job }: { job: JobDetail }) {
  if (!job.parent_id && !job.children_total) return null
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Family</h2>
      </header>
      <ul className="family">
        {job.parent_id && (
          <li>
            <span className="faint">parent</span>
            <a className="mono" href={`#/jobs/${job.parent_id}`} onClick={peekAt(job.parent_id)}>
              {job.parent_id}
            </a>
          </li>
        )}
        {job.children.map((child) => (
          <li key={child.id}>
            <StatusBadge status={child.status} />
            <a className="cut" href={`#/jobs/${child.id}`} title={child.id} onClick={peekAt(child.id)}>
              <Text>{child.kind}</Text>
            </a>
          </li>
        ))}
        {job.children_total > job.children.length && (
          <li>
            <a href={`#${address('/jobs', { parent: job.id })}`}>All {whole(job.children_total)} children</a>
          </li>
        )}
      </ul>
    </section>
  )
}

function AskOne({ job, action, close, left }: { job: JobDetail; action: Action; close: () => void; left: () => void }) {
  const client = useQueryClient()
  const look = ACTIONS[action]
  async function run() {
    if (action === 'delete') {
      const { outcome } = await removeGoing<{ outcome: string }>(job.id, path('jobs', job.id))
      say(outcome === 'deleted' ? 'Deleted' : 'It runs, and was asked to stop')
      // Left before anything is read again: the job is not there any more.
      if (outcome === 'deleted') left()
    } else {
      const answer = await post<Act>(path('jobs', job.id, action === 'run_now' ? 'run-now' : action))
      say(answer.held_by ? `Not changed: job ${answer.held_by} holds its dedupe key` : `${look.name}: ${answer.outcome.replaceAll('_', ' ')}`, !answer.changed)
    }
    void client.invalidateQueries()
  }
  return (
    <Confirm title={`${look.name} this job`} act={look.name} danger={look.danger} close={close} run={run}>
      <p>
        <b><Text>{job.kind}</Text></b> <span className="mono">{job.id}</span>
      </p>
      <p>{SAYS[action](job)}</p>
    </Confirm>
  )
}

const SAYS: Record<Action, (job: JobDetail) => string> = {
  retry: () => 'It becomes ready at once, with a fresh budget of attempts.',
  run_now: () => 'It becomes due at once.',
  cancel: (job) => (job.status === 'in_progress' ? 'Its handler is asked to stop. Unless it is done by then, it ends dead.' : 'It ends dead without running.'),
  delete: (job) => (job.status === 'in_progress' ? 'It runs: its handler is asked to stop, and it stays until it has ended.' : 'It is gone for good, with its history.'),
}

const shell = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

function enqueueLine(job: JobDetail): string {
  // A long one as the file that Download gives.
  const payload = job.payload_cut ? `@job-${job.id}.json` : job.payload
  return `forge-jobs enqueue ${shell(job.kind)} ${shell(payload)} --queue ${shell(job.queue)}`
}

function curlLine(job: JobDetail): string {
  return `curl -X POST ${apiUrl('jobs')} -H 'Content-Type: application/json' -H "Authorization: Bearer $FORGE_API_TOKEN" -d ${shell(`{"queue": ${JSON.stringify(job.queue)}, "kind": ${JSON.stringify(job.kind)}, "payload": ${job.payload}}`)}`
}
