import { useEffect, useRef, useState } from 'react'
import { useOpenJob } from '../lib/hash_router'
import { useKeys, type Keys } from '../lib/keys'
import { tellPlace } from './place'

export type Column<R> = {
  id: string
  head: React.ReactNode
  cell: (row: R) => React.ReactNode
  /** Numbers go to the right. */
  right?: boolean
  /** Takes what room is left, and is cut. */
  grow?: boolean
  /** Left out below this width. */
  hide?: 'narrow' | 'middle'
}

type Props<R> = {
  label: string
  columns: Column<R>[]
  rows: readonly R[]
  keyOf: (row: R) => string
  open?: (row: R) => void
  /** The rows are jobs by their ids: the one in the drawer is the cursor, and moving on opens the next one there. */
  jobs?: boolean
  dimmed?: (row: R) => boolean
  selection?: { chosen: ReadonlySet<string>; choose: (keys: ReadonlySet<string>) => void }
  keys?: (row: R) => Keys
}

const PRESSABLE = 'a, button, summary'

/** Rows with a cursor (`j k`, Enter or `o`), and check boxes if they can be chosen (`x`, with Shift from the last one on). */
export function Table<R>({ label, columns, rows, keyOf, open, jobs, dimmed, selection, keys }: Props<R>) {
  const [cursor, setCursor] = useState<string | null>(null)
  const body = useRef<HTMLTableSectionElement>(null)
  const lastChosen = useRef<string | null>(null)
  const openJob = useOpenJob()
  const opened = jobs ? openJob : null
  const at = rows.findIndex((row) => keyOf(row) === cursor)
  const current = rows[at]
  const before = opened && opened === cursor && rows[at - 1] ? keyOf(rows[at - 1]!) : null
  const after = opened && opened === cursor && rows[at + 1] ? keyOf(rows[at + 1]!) : null

  useEffect(() => {
    if (cursor) body.current?.querySelector(`[data-key="${CSS.escape(cursor)}"]`)?.scrollIntoView({ block: 'nearest' })
  }, [cursor])

  const isHere = opened !== null && rows.some((row) => keyOf(row) === opened)
  useEffect(() => {
    if (isHere) setCursor(opened)
  }, [isHere, opened])
  useEffect(() => {
    if (isHere) return tellPlace({ at: at + 1, of: rows.length, before, after })
  }, [isHere, at, rows.length, before, after])

  function move(by: number) {
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + by))]
    if (!next) return
    setCursor(keyOf(next))
    if (opened && next !== current) open?.(next)
  }

  function toggle(key: string, range: boolean) {
    if (!selection) return
    const next = new Set(selection.chosen)
    const from = rows.findIndex((row) => keyOf(row) === lastChosen.current)
    const to = rows.findIndex((row) => keyOf(row) === key)
    const on = !next.has(key)
    const span = range && from >= 0 ? rows.slice(Math.min(from, to), Math.max(from, to) + 1) : [rows[to]!]
    for (const row of span) on ? next.add(keyOf(row)) : next.delete(keyOf(row))
    lastChosen.current = key
    selection.choose(next)
  }

  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ...(current && open
      ? {
          o: () => open(current),
          Enter: (event) => {
            const pressed = event.target instanceof Element ? event.target.closest<HTMLElement>(PRESSABLE) : null
            pressed ? pressed.click() : open(current)
          },
        }
      : {}),
    ...(current && selection ? { x: () => toggle(keyOf(current), false) } : {}),
    ...(current && keys ? keys(current) : {}),
  })

  const every = selection && rows.length > 0 && rows.every((row) => selection.chosen.has(keyOf(row)))
  return (
    <table className="table" aria-label={label} role="table">
      <thead role="rowgroup">
        <tr role="row">
          {selection && (
            <th className="pick" role="columnheader">
              <input type="checkbox" aria-label="Select all on this page" checked={every} onChange={() => selection.choose(every ? new Set() : new Set(rows.map(keyOf)))} />
            </th>
          )}
          {columns.map((column) => (
            <th key={column.id} role="columnheader" scope="col" className={classes(column)}>
              {column.head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody ref={body} role="rowgroup">
        {rows.map((row) => {
          const key = keyOf(row)
          const chosen = selection?.chosen.has(key) ?? false
          return (
            <tr
              key={key}
              role="row"
              data-key={key}
              aria-selected={selection ? chosen : undefined}
              className={`${key === cursor ? 'cursor' : ''} ${chosen ? 'chosen' : ''} ${dimmed?.(row) ? 'gone' : ''} ${open ? 'opens' : ''}`}
              onClick={(event) => {
                if (!open || (event.target as HTMLElement).closest('a, button, input, label') || window.getSelection()?.toString()) return
                open(row)
              }}
            >
              {selection && (
                <td className="pick" role="cell">
                  <input type="checkbox" aria-label={`Select ${key}`} checked={chosen} onChange={() => undefined} onClick={(event) => toggle(key, event.shiftKey)} />
                </td>
              )}
              {columns.map((column) => (
                <td key={column.id} role="cell" className={classes(column)} data-label={typeof column.head === 'string' ? column.head : undefined}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          )
        })}
      </tbody>
    </table>
  )
}

function classes<R>(column: Column<R>): string {
  return `col-${column.id} ${column.right ? 'right num' : ''} ${column.grow ? 'grow' : ''} ${column.hide ? `hide-${column.hide}` : ''}`
}
