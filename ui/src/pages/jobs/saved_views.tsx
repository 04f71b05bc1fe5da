import { useState } from 'react'
import { navigate, useHashSearch } from '../../lib/hash_router'
import { Button } from '../../parts/button'
import { Confirm } from '../../parts/dialog'

const KEY = 'forge-jobs.views'
type View = { name: string; search: string }

function kept(): View[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]')
    return Array.isArray(found) ? found.filter((one): one is View => typeof one?.name === 'string' && typeof one?.search === 'string') : []
  } catch {
    return []
  }
}

/** Searches with names, kept in this browser. */
export function SavedViews() {
  const search = useHashSearch()
  const [views, setViews] = useState(kept)
  const [naming, setNaming] = useState(false)
  const [name, setName] = useState('')

  function keep(next: View[]) {
    localStorage.setItem(KEY, JSON.stringify(next))
    setViews(next)
  }

  const current = views.find((view) => view.search === search)
  return (
    <span className="views">
      {views.length > 0 && (
        <select aria-label="Saved views" value={current?.name ?? ''} onChange={(event) => navigate(`/jobs?${views.find((v) => v.name === event.target.value)?.search ?? ''}`)}>
          <option value="">Saved views</option>
          {views.map((view) => (
            <option key={view.name}>{view.name}</option>
          ))}
        </select>
      )}
      {current ? (
        <Button tone="quiet" onClick={() => keep(views.filter((view) => view !== current))}>
          Forget
        </Button>
      ) : (
        search && (
          <Button tone="quiet" onClick={() => setNaming(true)}>
            Save view
          </Button>
        )
      )}
      {naming && (
        <Confirm
          title="Save this view"
          act="Save"
          ready={name.trim() !== ''}
          close={() => setNaming(false)}
          run={async () => {
            keep([...views.filter((view) => view.name !== name.trim()), { name: name.trim(), search }])
            setName('')
          }}
        >
          <label className="field">
            <span className="label">Name</span>
            <input type="text" value={name} autoFocus onChange={(event) => setName(event.target.value)} />
          </label>
        </Confirm>
      )}
    </span>
  )
}
