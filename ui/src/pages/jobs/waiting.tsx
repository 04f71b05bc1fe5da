import { useOverview } from '../../api/queries'
import { useParams } from '../../lib/hash_router'
import { readSearch } from '../../lib/job_search'
import { counted } from '../../lib/text'
import { PageHead } from '../../parts/page_head'
import { JobList, NoJobs } from './job_list'
import { SearchField } from './search_field'

/** Jobs whose time has not come, soonest first. */
export function Scheduled() {
  const counts = useOverview().data?.counts
  const [line, search] = useLine()
  return (
    <>
      <PageHead title="Scheduled" note={counts && `${counted(counts.scheduled, 'job')} with a time to come`} />
      <SearchField line={line} search={search} />
      <JobList
        view="scheduled"
        order="future"
        filter={{ ...readSearch(line).filter, status: ['pending'] }}
        actions={['run_now', 'cancel', 'delete']}
        empty={<NoJobs title="Nothing waits">Jobs that are added with a delay or a time to run at wait here.</NoJobs>}
      />
    </>
  )
}

/** Failed jobs that will run again, soonest first. */
export function Retries() {
  const [line, search] = useLine()
  return (
    <>
      <PageHead title="Retries" note="Failed at least once, and will run again" />
      <SearchField line={line} search={search} />
      <JobList
        view="retries"
        order="scheduled"
        filter={{ ...readSearch(line).filter, status: ['failed'] }}
        actions={['retry', 'cancel', 'delete']}
        empty={<NoJobs title="Nothing waits for a retry">Jobs that fail come here until their next attempt.</NoJobs>}
      />
    </>
  )
}

export function useLine(): [string, (line: string) => void] {
  const [params, change] = useParams()
  return [params.get('q') ?? '', (line) => change({ q: line || null, cursor: null })]
}
