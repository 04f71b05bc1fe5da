// Reads of the API with their cache keys. The first part of a key is what `live.ts` makes stale.
import { keepPreviousData, useQuery, type UseQueryResult } from '@tanstack/react-query'
import { get, path, Problem, remove, type Query } from './client'
import { interval } from './live'
import type * as T from './types'

type Options = { enabled?: boolean | (() => boolean); everyMs?: number | false; keep?: boolean }

export function useRead<A>(key: readonly unknown[], url: string, query?: Query, { enabled = true, everyMs, keep = true }: Options = {}): UseQueryResult<A, Problem> {
  return useQuery<A, Problem>({
    queryKey: query ? [...key, query] : key,
    queryFn: ({ signal }) => get<A>(url, query, signal),
    enabled,
    refetchInterval: everyMs === undefined ? () => interval() : everyMs,
    placeholderData: keep ? keepPreviousData : undefined,
  })
}

export const useMe = () => useRead<T.Me>(['me'], 'me', undefined, { everyMs: 60_000 })
export const useOverview = () => useRead<T.Overview>(['overview'], 'overview')
export const useQueues = () => useRead<T.Listed<T.Queue>>(['queues'], 'queues')
export const useKinds = (queue?: string) => useRead<T.Listed<T.Kind>>(['kinds'], 'kinds', { queue }, { everyMs: 30_000 })
export const useKind = (kind: string, enabled = true) => useRead<T.KindDetail>(['kinds', 'one', kind], path('kinds', kind), undefined, { keep: false, enabled })
export const useWorkers = () => useRead<T.Workers>(['workers'], 'workers')
export const useSchedules = () => useRead<T.Listed<T.Schedule>>(['schedules'], 'schedules')
export const useLimits = () => useRead<T.Listed<T.RateLimit>>(['limits'], 'rate-limits')
export const useJob = (id: string) => useRead<T.JobDetail>(['job', id], path('jobs', id), undefined, { keep: false, enabled: () => !going.has(id) })

/** What is being deleted here, by id or name: it is not read any more, though events still tell of it. */
export const going = new Set<string>()

/** Deletes it. The page that shows it must be left in the same step as the answer comes. */
export async function removeGoing<A>(what: string, url: string): Promise<A> {
  going.add(what)
  return remove<A>(url).finally(() => window.setTimeout(() => going.delete(what)))
}
export const useGroups = (status: string, enabled: boolean) => useRead<T.Listed<T.Group>>(['groups', status], 'jobs/groups', { status }, { enabled })

/** The roles in order; a page shows an act only to who may do it. */
const ROLES = ['read', 'operate', 'admin']

export function useMay(role: 'operate' | 'admin'): boolean {
  const me = useMe().data
  return me != null && !me.read_only && ROLES.indexOf(me.role) >= ROLES.indexOf(role)
}
