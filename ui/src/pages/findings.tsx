import { useRead } from '../api/queries'
import type { Check, Findings as FindingsAnswer } from '../api/types'
import { counted, heading } from '../lib/text'
import { Badge } from '../parts/badge'
import { Loaded } from '../parts/states'
import { Text } from '../parts/text'
import { Time } from '../parts/time'

const LOOKS = {
  fail: { tone: 'bad', mark: 'cross', word: 'fails' },
  warn: { tone: 'warn', mark: 'bang', word: 'look' },
  ok: { tone: 'good', mark: 'tick', word: 'fine' },
} as const
const EVERY_MS = 15_000

/** What `forge-jobs doctor` finds, with what to do about it: the worst on top, and what is fine behind a line. */
export function Findings() {
  const read = useRead<FindingsAnswer>(['doctor'], 'doctor', undefined, { everyMs: EVERY_MS })
  return (
    <section className="panel findings" aria-label="Findings">
      <Loaded read={read} rows={3}>
        {(found) => {
          const wrong = [...found.checks.filter((check) => check.verdict === 'fail'), ...found.checks.filter((check) => check.verdict === 'warn')]
          const fine = found.checks.filter((check) => check.verdict === 'ok')
          return (
            <>
              <header className="panel-head">
                <h2>{wrong.length ? `${wrong.length} of ${counted(found.checks.length, 'check')} ${wrong.length === 1 ? 'needs' : 'need'} a look` : 'All checks are fine'}</h2>
                <span className="faint">
                  looked <Time at={found.at} />
                </span>
              </header>
              {wrong.length > 0 && <List checks={wrong} />}
              <details>
                <summary>{wrong.length ? `${fine.length} that are fine` : 'What was checked'}</summary>
                <List checks={fine} />
              </details>
            </>
          )
        }}
      </Loaded>
    </section>
  )
}

function List({ checks }: { checks: Check[] }) {
  return (
    <ul>
      {checks.map((check, i) => {
        const look = LOOKS[check.verdict]
        return (
          <li key={`${check.name} ${i}`}>
            <Badge tone={look.tone} mark={look.mark}>
              {look.word}
            </Badge>
            <b>{heading(check.name)}</b>
            <div>
              <p>
                <Text>{check.detail}</Text>{' '}
                {check.queue && <a className="underlined" href={`#/queues/${encodeURIComponent(check.queue)}`}>Queue</a>}
              </p>
              {check.remedy && (
                <p className="remedy">
                  <Text>{check.remedy}</Text>
                </p>
              )}
            </div>
          </li>
        )
      })}
    </ul>
  )
}
