import type { UseQueryResult } from '@tanstack/react-query'
import type { Problem } from '../api/client'
import { duration } from '../lib/format'
import { useSecond } from '../lib/time'
import { Button } from './button'
import { Icon } from './icons'
import { Text } from './text'

export function ProblemLine({ problem }: { problem: Problem }) {
  return (
    <p className="problem-line" role="alert">
      <Icon name="warn" size={14} />
      <span>
        <Text>{problem.detail}</Text> <code>{problem.code}</code>
        {problem.requestId && (
          <>
            {' '}
            <span className="faint">request</span> <code>{problem.requestId}</code>
          </>
        )}
      </span>
    </p>
  )
}

export function Failure({ problem, retry }: { problem: Problem; retry: () => void }) {
  return (
    <div className="state" role="alert">
      <span className="state-icon bad">
        <Icon name="warn" size={22} />
      </span>
      <h2>{problem.status === 404 ? 'Not found' : problem.status === 403 ? 'Not allowed' : 'This could not be read'}</h2>
      <p className="soft">
        <Text>{problem.detail}</Text>
      </p>
      <p className="faint">
        <code>{problem.code}</code>
        {problem.requestId && (
          <>
            {' · request '}
            <code>{problem.requestId}</code>
          </>
        )}
      </p>
      <Button icon="retries" onClick={retry}>
        Retry
      </Button>
    </div>
  )
}

export function Empty({ title, children }: { title: string; children?: React.ReactNode }) {
  return (
    <div className="state">
      <h2>{title}</h2>
      {children && <div className="soft">{children}</div>}
    </div>
  )
}

export function Skeleton({ rows = 8 }: { rows?: number }) {
  return (
    <div className="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} />
      ))}
    </div>
  )
}

const STALE_S = 15

/** Loading, failed, stale, there: `children` are rendered with what was read last, dimmed with its age if that is old. */
export function Loaded<A>({ read, rows, children }: { read: UseQueryResult<A, Problem>; rows?: number; children: (data: A) => React.ReactNode }) {
  useSecond()
  if (read.data === undefined) {
    if (read.error && !read.isFetching) return <Failure problem={read.error} retry={() => void read.refetch()} />
    return <Skeleton rows={rows} />
  }
  const ageS = (Date.now() - read.dataUpdatedAt) / 1000
  const stale = read.failureCount > 0 && ageS > STALE_S
  return (
    <>
      {read.error && (
        <div className="stale" role="status">
          <Icon name="warn" size={14} />
          <span>
            As of {duration(ageS)} ago: <Text>{read.error.detail}</Text> <code>{read.error.code}</code>
            {read.error.requestId && <code> {read.error.requestId}</code>}
          </span>
          <Button onClick={() => void read.refetch()}>Retry</Button>
        </div>
      )}
      <div className={stale ? 'dimmed' : undefined}>{children(read.data)}</div>
    </>
  )
}
