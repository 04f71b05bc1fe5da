import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'
import { get, path } from '../../api/client'
import { useJob } from '../../api/queries'
import type { JobDetail } from '../../api/types'
import { navigate, openJob, useOpenJob } from '../../lib/hash_router'
import { press, useKeys } from '../../lib/keys'
import { Button, LinkButton } from '../../parts/button'
import { usePlace } from '../../parts/place'
import { Loaded } from '../../parts/states'
import { JobView } from './job'

const FRESH_MS = 5_000

/** The job of the address beside the page that names it. The page stays in use: `j k` go on to its other jobs. */
export function JobDrawer() {
  const id = useOpenJob()
  return id && <Drawer id={id} />
}

function Drawer({ id }: { id: string }) {
  const read = useJob(id)
  const place = usePlace()
  const element = useRef<HTMLElement>(null)
  const close = () => openJob(null)
  useKeys({ Escape: close, f: () => navigate(`/jobs/${id}`) })
  useFocusInside(element)
  useReadAhead([place?.after, place?.before])
  useEffect(() => void element.current?.querySelector('.drawer-body')?.scrollTo(0, 0), [id])
  return (
    <section className="drawer" role="dialog" aria-label="Job" tabIndex={-1} ref={element}>
      <header className="drawer-bar">
        <Button tone="quiet" icon="up" aria-label="Job before (k)" title="Job before (k)" disabled={!place?.before} onClick={() => press('k')} />
        <Button tone="quiet" icon="down" aria-label="Next job (j)" title="Next job (j)" disabled={!place?.after} onClick={() => press('j')} />
        {place && (
          <span className="faint num">
            {place.at} of {place.of} on this page
          </span>
        )}
        <span className="space" />
        <LinkButton tone="quiet" icon="whole" href={`#/jobs/${id}`} title="Open as a page (f)">
          Full page
        </LinkButton>
        <Button tone="quiet" icon="cancel" aria-label="Close (Esc)" title="Close (Esc)" onClick={close} />
      </header>
      <div className="drawer-body">
        <Loaded read={read} rows={10}>
          {(job) => <JobView key={job.id} job={job} beside left={close} />}
        </Loaded>
      </div>
    </section>
  )
}

/** The focus goes in with the drawer, and back with it. */
function useFocusInside(element: React.RefObject<HTMLElement | null>): void {
  useEffect(() => {
    const before = document.activeElement
    element.current?.focus({ preventScroll: true })
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true })
    }
  }, [])
}

/** The jobs beside it are read before they are asked for, so that going on shows them at once. */
function useReadAhead(ids: (string | null | undefined)[]): void {
  const client = useQueryClient()
  useEffect(() => {
    for (const id of ids) {
      if (id) void client.prefetchQuery({ queryKey: ['job', id], queryFn: ({ signal }) => get<JobDetail>(path('jobs', id), undefined, signal), staleTime: FRESH_MS })
    }
  }, ids)
}
