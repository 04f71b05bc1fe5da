import { useLocation } from 'wouter'
import { useMe, useOverview } from '../api/queries'
import type { Counts } from '../api/types'
import { compact } from '../lib/format'
import { Icon, type IconName } from '../parts/icons'

export type Place = { path: string; name: string; icon: IconName; letter: string; group: number; count?: (counts: Counts) => number; tone?: string; admin?: boolean }

export const PLACES: Place[] = [
  { path: '/', name: 'Overview', icon: 'overview', letter: 'o', group: 0 },
  { path: '/jobs', name: 'Jobs', icon: 'jobs', letter: 'j', group: 0 },
  { path: '/scheduled', name: 'Scheduled', icon: 'scheduled', letter: 's', group: 0, count: (c) => c.scheduled },
  { path: '/retries', name: 'Retries', icon: 'retries', letter: 'r', group: 0, count: (c) => c.failed, tone: 'warn' },
  { path: '/dead', name: 'Dead', icon: 'dead', letter: 'd', group: 0, count: (c) => c.dead, tone: 'bad' },
  { path: '/queues', name: 'Queues', icon: 'queues', letter: 'q', group: 1 },
  { path: '/kinds', name: 'Kinds', icon: 'kinds', letter: 'k', group: 1 },
  { path: '/limits', name: 'Limits', icon: 'limits', letter: 'l', group: 1 },
  { path: '/workers', name: 'Workers', icon: 'workers', letter: 'w', group: 1 },
  { path: '/schedules', name: 'Schedules', icon: 'schedules', letter: 'c', group: 1 },
  { path: '/metrics', name: 'Metrics', icon: 'metrics', letter: 'm', group: 2 },
  { path: '/store', name: 'Store', icon: 'store', letter: 't', group: 2 },
  { path: '/audit', name: 'Audit', icon: 'audit', letter: 'a', group: 2, admin: true },
]

export function Nav({ onGo }: { onGo: () => void }) {
  const [here] = useLocation()
  const counts = useOverview().data?.counts
  const admin = useMe().data?.role === 'admin' // also of a server that is read-only
  return (
    <nav aria-label="Pages">
      {[0, 1, 2].map((group) => (
        <ul key={group}>
          {PLACES.filter((place) => place.group === group && (!place.admin || admin)).map((place) => {
            const current = place.path === '/' ? here === '/' : here === place.path || here.startsWith(`${place.path}/`)
            const count = counts && place.count ? place.count(counts) : 0
            return (
              <li key={place.path}>
                <a href={`#${place.path}`} aria-current={current ? 'page' : undefined} onClick={onGo}>
                  <Icon name={place.icon} />
                  <span>{place.name}</span>
                  {count > 0 && <span className={`nav-count num ${place.tone ?? ''}`}>{compact(count)}</span>}
                </a>
              </li>
            )
          })}
        </ul>
      ))}
    </nav>
  )
}
