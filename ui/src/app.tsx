import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { Route, Router, Switch } from 'wouter'
import { Problem } from './api/client'
import { startLive } from './api/live'
import { useMe } from './api/queries'
import { useHashPath, useHashSearch } from './lib/hash_router'
import { Failure, Skeleton } from './parts/states'
import { Toasts } from './parts/toast'
import { Login } from './pages/login'
import { PAGES } from './pages/pages'
import { Shell } from './shell/shell'
import { Empty } from './parts/states'

export function App() {
  return (
    <Router hook={useHashPath} searchHook={useHashSearch}>
      <Gate />
      <Toasts />
    </Router>
  )
}

/** Nothing is shown before it is known who looks. */
function Gate() {
  const me = useMe()
  const client = useQueryClient()
  const [outside, setOutside] = useState(false)
  const known = me.data !== undefined && !outside
  useEffect(() => {
    if (me.error instanceof Problem && me.error.status === 401) setOutside(true)
  }, [me.error])
  useEffect(() => (known ? startLive(client) : undefined), [known, client])

  if (outside) {
    return (
      <Login
        entered={async () => {
          client.clear()
          await me.refetch()
          setOutside(false)
        }}
      />
    )
  }
  if (!me.data) {
    return (
      <main className="alone">{me.error && !me.isFetching ? <Failure problem={me.error} retry={() => void me.refetch()} /> : <Skeleton rows={4} />}</main>
    )
  }
  return (
    <Shell me={me.data} leave={() => setOutside(true)}>
      <Switch>
        {PAGES.map((page) => (
          <Route key={page.path} path={page.path}>
            {page.render}
          </Route>
        ))}
        <Route>
          <Empty title="There is no such page">
            <a href="#/">Go to the overview</a>
          </Empty>
        </Route>
      </Switch>
    </Shell>
  )
}
