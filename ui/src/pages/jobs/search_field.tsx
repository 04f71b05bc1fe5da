import { useEffect, useId, useRef, useState } from 'react'
import { useKinds, useQueues } from '../../api/queries'
import { offers, readSearch } from '../../lib/job_search'
import { Icon } from '../../parts/icons'
import { Text } from '../../parts/text'

const REST_MS = 350 // a pause in typing of this length searches

type Props = { line: string; search: (line: string) => void; focus?: boolean }

/** The search line with what its last word may become. What is typed is never replaced by an update. */
export function SearchField({ line, search, focus }: Props) {
  const [typed, setTyped] = useState(line)
  const [open, setOpen] = useState(false)
  const [at, setAt] = useState(-1)
  const field = useRef<HTMLInputElement>(null)
  const timer = useRef(0)
  const sent = useRef(line)
  const list = useId()
  const queues = useQueues().data?.items.map((queue) => queue.name) ?? []
  const kinds = useKinds().data?.items.map((one) => one.kind) ?? []

  useEffect(() => {
    if (line !== sent.current) setTyped(line) // the address changed otherwise, as by Back
    sent.current = line
  }, [line])
  useEffect(() => {
    if (focus) field.current?.focus()
  }, [focus])
  useEffect(() => () => window.clearTimeout(timer.current), [])

  function type(next: string, now = false) {
    setTyped(next)
    setAt(-1)
    window.clearTimeout(timer.current)
    const send = () => {
      sent.current = next.trim()
      search(sent.current)
    }
    if (now) send()
    else timer.current = window.setTimeout(send, REST_MS)
  }

  const offered = open ? offers(typed, { queues, kinds }) : []
  const unknown = readSearch(typed).unknown
  return (
    <div className="search">
      <Icon name="search" size={14} />
      <input
        ref={field}
        type="search"
        data-search
        value={typed}
        placeholder="queue:mail status:dead error:timeout, or words in the payload"
        aria-label="Search jobs"
        role="combobox"
        aria-expanded={offered.length > 0}
        aria-controls={list}
        aria-autocomplete="list"
        aria-activedescendant={at >= 0 ? `${list}-${at}` : undefined}
        spellCheck={false}
        autoComplete="off"
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onChange={(event) => {
          setOpen(true)
          type(event.target.value)
        }}
        onKeyDown={(event) => {
          if (event.key === 'ArrowDown' && offered.length) setAt((at + 1) % offered.length)
          else if (event.key === 'ArrowUp' && offered.length) setAt((at + offered.length) % (offered.length + 1) - 1)
          else if (event.key === 'Enter') type(offered[at]?.insert ?? typed, true)
          else if (event.key === 'Tab' && offered.length && !event.shiftKey) type(offered[Math.max(0, at)]!.insert)
          else if (event.key === 'Escape') field.current?.blur()
          else return
          event.preventDefault()
        }}
      />
      {offered.length > 0 && (
        <ul id={list} role="listbox" aria-label="Completions" className="offers">
          {offered.map((offer, i) => (
            <li key={offer.insert} id={`${list}-${i}`} role="option" aria-selected={i === at} onMouseDown={(event) => { event.preventDefault(); type(offer.insert, !offer.insert.endsWith(':')) }}>
              <Text>{offer.text}</Text>
            </li>
          ))}
        </ul>
      )}
      {unknown.length > 0 && (
        <p className="search-note warn" role="status">
          There is no qualifier <Text>{unknown.join(', ')}</Text>: use queue, kind, status, reason, key, tag, error, id or payload
        </p>
      )}
    </div>
  )
}
