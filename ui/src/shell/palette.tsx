import { useEffect, useId, useRef, useState } from 'react'
import { useKinds, useMe, useQueues } from '../api/queries'
import { address, navigate } from '../lib/hash_router'
import { quoted } from '../lib/job_search'
import { Icon, type IconName } from '../parts/icons'
import { Text } from '../parts/text'
import { PLACES } from './nav'

type Target = { key: string; name: string; what: string; icon: IconName; to: string }
const SHOWN = 12
const JOB_ID = /^[0-9A-HJKMNP-TV-Z]{26}$/i

/** Goes to whatever is named: pages, queues, kinds, job ids. */
export function Palette({ close }: { close: () => void }) {
  const [wanted, setWanted] = useState('')
  const [at, setAt] = useState(0)
  const element = useRef<HTMLDialogElement>(null)
  const list = useId()
  const admin = useMe().data?.role === 'admin'
  const queues = useQueues().data?.items ?? []
  const kinds = useKinds().data?.items ?? []

  useEffect(() => element.current?.showModal(), [])

  const word = wanted.trim().toLowerCase()
  const all: Target[] = [
    ...PLACES.filter((place) => admin || !place.admin).map((place) => ({ key: place.path, name: place.name, what: 'page', icon: place.icon, to: place.path })),
    ...queues.map((queue) => ({ key: `q ${queue.name}`, name: queue.name, what: 'queue', icon: 'queues' as const, to: `/queues/${encodeURIComponent(queue.name)}` })),
    ...kinds.map(({ kind }) => ({ key: `k ${kind}`, name: kind, what: 'kind', icon: 'jobs' as const, to: address('/jobs', { q: `kind:${quoted(kind)}` }) })),
  ]
  const found = all.filter((one) => one.name.toLowerCase().includes(word)).slice(0, SHOWN)
  if (JOB_ID.test(wanted.trim())) {
    const id = wanted.trim().toUpperCase()
    found.unshift({ key: id, name: id, what: 'job', icon: 'jobs', to: `/jobs/${id}` })
  } else if (word) {
    found.push({ key: 'search', name: wanted.trim(), what: 'search jobs', icon: 'search', to: address('/jobs', { q: wanted.trim() }) })
  }
  const index = Math.min(at, found.length - 1)

  function go(target: Target | undefined) {
    if (!target) return
    close()
    navigate(target.to)
  }

  return (
    <dialog
      ref={element}
      className="dialog palette"
      aria-label="Go to"
      onCancel={(event) => {
        event.preventDefault()
        close()
      }}
      onMouseDown={(event) => event.target === element.current && close()}
    >
      <div className="palette-field">
        <Icon name="search" />
        <input
          autoFocus
          value={wanted}
          placeholder="Page, queue, kind, job id, or words in a payload"
          aria-label="Go to"
          role="combobox"
          aria-expanded="true"
          aria-controls={list}
          aria-activedescendant={found[index] ? `${list}-${index}` : undefined}
          onChange={(event) => {
            setWanted(event.target.value)
            setAt(0)
          }}
          onKeyDown={(event) => {
            if (event.key === 'ArrowDown') setAt(Math.min(found.length - 1, index + 1))
            else if (event.key === 'ArrowUp') setAt(Math.max(0, index - 1))
            else if (event.key === 'Enter') go(found[index])
            else return
            event.preventDefault()
          }}
        />
      </div>
      <ul id={list} role="listbox" aria-label="Found">
        {found.map((target, i) => (
          <li key={target.key} id={`${list}-${i}`} role="option" aria-selected={i === index} onMouseMove={() => setAt(i)} onClick={() => go(target)}>
            <Icon name={target.icon} />
            <span className="cut">
              <Text>{target.name}</Text>
            </span>
            <span className="faint">{target.what}</span>
          </li>
        ))}
        {!found.length && <li className="faint">Nothing of that name</li>}
      </ul>
    </dialog>
  )
}
