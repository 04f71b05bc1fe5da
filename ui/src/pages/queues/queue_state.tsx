import type { Queue } from '../../api/types'
import { now, useSecond } from '../../lib/time'
import { Badge } from '../../parts/badge'
import { Countdown } from '../../parts/time'

export function QueueState({ queue }: { queue: Queue }) {
  useSecond()
  const cooling = queue.throttled_until !== null && Date.parse(queue.throttled_until) > now()
  return (
    <span className="statuses">
      {queue.paused ? (
        <Badge tone="later" mark="bars">
          paused
        </Badge>
      ) : queue.max_workers === 0 ? (
        <Badge tone="later" mark="bars">
          stopped
        </Badge>
      ) : queue.unserved ? (
        <Badge tone="bad" mark="bang">
          not served
        </Badge>
      ) : cooling ? (
        <Badge tone="warn" mark="clock">
          cooling <Countdown until={queue.throttled_until!} />
        </Badge>
      ) : queue.slots_busy > 0 ? (
        <Badge tone="run" mark="spin">
          working
        </Badge>
      ) : queue.slots_open > 0 ? (
        <Badge tone="good" mark="tick">
          idle
        </Badge>
      ) : (
        <Badge tone="wait" mark="ring">
          no worker
        </Badge>
      )}
      {!queue.unserved && queue.unserved_kinds.length > 0 && (
        <Badge tone="bad" mark="bang">
          {queue.unserved_kinds.length} kind{queue.unserved_kinds.length === 1 ? '' : 's'} not served
        </Badge>
      )}
    </span>
  )
}
