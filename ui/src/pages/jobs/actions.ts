import type { JobRow, Status } from '../../api/types'
import type { IconName } from '../../parts/icons'

export type Action = 'retry' | 'run_now' | 'cancel' | 'delete'

type Look = { name: string; icon: IconName; key?: string; danger?: boolean; from: Status[]; says: string }

/** What a person can do to jobs, and to which of them it applies. */
export const ACTIONS: Record<Action, Look> = {
  retry: { name: 'Retry', icon: 'retries', key: 'r', from: ['failed', 'dead'], says: 'They become ready at once, with a fresh budget of attempts.' },
  run_now: { name: 'Run now', icon: 'bolt', from: ['pending'], says: 'They become due at once.' },
  cancel: { name: 'Cancel', icon: 'cancel', key: 'c', danger: true, from: ['pending', 'failed', 'in_progress'], says: 'Waiting jobs end dead. Running ones are asked to stop.' },
  delete: { name: 'Delete', icon: 'trash', key: 'd', danger: true, from: ['pending', 'failed', 'done', 'dead', 'in_progress'], says: 'They are gone for good, with their history. Running ones are asked to stop.' },
}

/** The acts that a job in its status takes. */
export function actsOn(job: JobRow): Action[] {
  return (Object.keys(ACTIONS) as Action[]).filter((action) => ACTIONS[action].from.includes(job.status))
}
