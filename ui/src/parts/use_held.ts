import { useEffect, useRef, useState } from 'react'

/** Rows that stay where they are while somebody looks at them.
 *
 * Rows that are shown are updated in place. New ones wait (`fresh` of them) until `show` is called, and rows that left
 * the list stay, as they were last, while `still` holds. `scope` names the list: another one starts anew.
 */
export function useHeld<R>(items: readonly R[] | undefined, keyOf: (row: R) => string, scope: string, still: boolean) {
  const [order, setOrder] = useState<{ scope: string; keys: string[] } | null>(null)
  const known = useRef(new Map<string, R>())
  const now = new Map((items ?? []).map((row) => [keyOf(row), row]))
  for (const [key, row] of now) known.current.set(key, row)

  const held = order?.scope === scope ? order.keys : null
  const show = () => {
    known.current = new Map(now)
    setOrder({ scope, keys: [...now.keys()] })
  }

  useEffect(() => {
    if (!items) return
    if (!held || held.length === 0) {
      if (!held || items.length) show()
    } else if (!still && held.some((key) => !now.has(key))) {
      const left = held.filter((key) => now.has(key))
      if (left.length) setOrder({ scope, keys: left })
      else show()
    }
  })

  const keys = held ?? [...now.keys()]
  const shown = new Set(keys)
  const rows = keys.map((key) => now.get(key) ?? known.current.get(key)).filter((row) => row !== undefined)
  return {
    rows,
    fresh: held ? [...now.keys()].filter((key) => !shown.has(key)).length : 0,
    gone: (row: R) => !now.has(keyOf(row)),
    show,
  }
}
