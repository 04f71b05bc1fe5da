import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { path, post } from '../../api/client'
import { useKind, useMay } from '../../api/queries'
import type { KindDetail } from '../../api/types'
import { compact, duration } from '../../lib/format'
import { address } from '../../lib/hash_router'
import { Button, LinkButton } from '../../parts/button'
import { Copy } from '../../parts/copy'
import { Confirm } from '../../parts/dialog'
import { Facts, type Fact } from '../../parts/facts'
import { Json } from '../../parts/json'
import { PageHead } from '../../parts/page_head'
import { Loaded } from '../../parts/states'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'
import { say } from '../../parts/toast'
import { KindState, limitOf } from './kinds'

export function KindPage({ name }: { name: string }) {
  const read = useKind(name)
  return <Loaded read={read}>{(kind) => <Shown kind={kind} />}</Loaded>
}

function Shown({ kind }: { kind: KindDetail }) {
  const admin = useMay('admin')
  const [resetting, setResetting] = useState(false)
  return (
    <>
      <PageHead
        title={
          <span className="job-title">
            <Text>{kind.kind}</Text> <KindState kind={kind} />
          </span>
        }
        note={<Text>{kind.description}</Text>}
      >
        <LinkButton icon="jobs" href={`#${address('/jobs', { q: `kind:${kind.kind}` })}`}>
          Jobs
        </LinkButton>
      </PageHead>
      <div className="job">
        <div className="job-main">
          <Schema kind={kind} />
          <Queues kind={kind} />
        </div>
        <div className="job-side">
          <KindFacts kind={kind} />
          <section className="panel">
            <header className="panel-head">
              <h2>Hidden from people</h2>
              {admin && kind.hides_more_than_code && (
                <span className="panel-acts">
                  <Button onClick={() => setResetting(true)}>Reset</Button>
                </span>
              )}
            </header>
            <div className="panel-text">
              <p>
                {kind.payload_view === 'hidden' ? 'Payloads, and what errors say, as a whole.' : 'Values under the usual keys, such as password and token'}
                {kind.payload_view !== 'hidden' && kind.redact.length > 0 && (
                  <>
                    , and under <span className="mono"><Text>{kind.redact.join(', ')}</Text></span>
                  </>
                )}
                {kind.payload_view !== 'hidden' && '.'}
              </p>
              {kind.hides_more_than_code && <p className="soft">That is more than the newest declaration says: what code declared once stays hidden until it is reset.</p>}
            </div>
          </section>
        </div>
      </div>
      {resetting && <Reset kind={kind} close={() => setResetting(false)} />}
    </>
  )
}

function Schema({ kind }: { kind: KindDetail }) {
  const schema = kind.declaration?.schema
  const text = JSON.stringify(schema ?? null)
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Schema of its payloads</h2>
        {schema != null && (
          <span className="panel-acts">
            <Copy text={() => text}>Copy</Copy>
          </span>
        )}
      </header>
      {kind.declaration === null ? (
        <p className="panel-text soft">No worker has declared this kind: it is known from its jobs alone.</p>
      ) : schema == null ? (
        <p className="panel-text soft">Its code gives none, or one that is too large to be kept.</p>
      ) : Object.keys(schema).length === 0 ? (
        <p className="panel-text soft">It takes any JSON: its handler names no type.</p>
      ) : (
        <Json text={text} />
      )}
    </section>
  )
}

function Queues({ kind }: { kind: KindDetail }) {
  if (kind.queues.length === 0) return null
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Jobs by queue</h2>
      </header>
      <ul className="family">
        {kind.queues.map((queue) => (
          <li key={queue.queue}>
            <a href={`#/queues/${encodeURIComponent(queue.queue)}`}><Text>{queue.queue}</Text></a>
            <span className="soft num">
              {compact(queue.waiting)} waiting · {compact(queue.in_progress)} running · {compact(queue.dead)} dead
            </span>
            {!queue.served && <span className="bad">not served</span>}
          </li>
        ))}
      </ul>
    </section>
  )
}

function KindFacts({ kind }: { kind: KindDetail }) {
  const code = kind.declaration
  const facts: Fact[] = []
  if (code) {
    facts.push(['Executor', <Text>{code.executor}</Text>])
    if (limitOf(kind)) facts.push(['Limit', <span>{kind.rate_limit ? <a href="#/limits"><Text>{kind.rate_limit}</Text></a> : 'by payload'}{code.cost !== null && code.cost !== 1 && <span className="soft"> · {compact(code.cost)} tokens</span>}</span>])
    if (code.queue) facts.push(['Queue', <a href={`#/queues/${encodeURIComponent(code.queue)}`}><Text>{code.queue}</Text></a>])
    facts.push(['Attempts', <span className="num">{code.max_attempts ?? 'as configured'}</span>])
    facts.push(['Timeout', code.timeout_s === null ? <span className="soft">none</span> : duration(code.timeout_s)])
    if (code.max_crashes !== null) facts.push(['Crashes', <span className="num">{code.max_crashes}</span>])
    facts.push(['Unreadable', code.bad_payload === 'dead' ? 'is dead' : 'is retried'])
  }
  if (kind.workers.length) facts.push(['Workers', <a href="#/workers"><Text>{kind.workers.map((worker) => worker.worker).join(', ')}</Text></a>])
  if (kind.declared_at) facts.push(['Declared', <span><Time at={kind.declared_at} /> by <Text>{kind.declared_by_label ?? kind.declared_by ?? ''}</Text></span>])
  if (facts.length === 0) return null
  return <Facts facts={facts} label="Fields" />
}

function Reset({ kind, close }: { kind: KindDetail; close: () => void }) {
  const client = useQueryClient()
  const code = kind.declaration
  const left = code?.payload_view === 'hidden' ? 'payloads and errors as a whole' : ['the usual keys', ...(code?.redact ?? [])].join(', ')
  return (
    <Confirm
      title={`Reset what ${kind.kind} hides`}
      act="Reset"
      danger
      close={close}
      run={async () => {
        await post(path('kinds', kind.kind, 'reset'))
        say(`${kind.kind} is reset to what code says`)
        void client.invalidateQueries()
      }}
    >
      <p>
        From then on only this is hidden of its jobs, as its newest declaration says: <b><Text>{left}</Text></b>.
      </p>
      <p className="soft">Look first that no code from before is to be deployed again.</p>
    </Confirm>
  )
}
