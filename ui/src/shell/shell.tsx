import { useEffect, useLayoutEffect, useState } from 'react'
import { useLocation } from 'wouter'
import { post } from '../api/client'
import { useLiveState } from '../api/live'
import { useMay, useOverview } from '../api/queries'
import type { Me } from '../api/types'
import { duration } from '../lib/format'
import { navigate } from '../lib/hash_router'
import { useKeys } from '../lib/keys'
import { title } from '../lib/title'
import { setTheme, useTheme, type Theme } from '../lib/theme'
import { useSecond, zone } from '../lib/time'
import { Button } from '../parts/button'
import { Icon } from '../parts/icons'
import { sayProblem } from '../parts/toast'
import { JobDrawer } from '../pages/jobs/drawer'
import { NewJob } from '../pages/new_job'
import { Help } from './help'
import { Nav, PLACES } from './nav'
import { Palette } from './palette'

type Props = { me: Me; leave: () => void; children: React.ReactNode }

export function Shell({ me, leave, children }: Props) {
  const [here] = useLocation()
  const [menu, setMenu] = useState(false)
  const [front, setFront] = useState<'palette' | 'help' | 'new' | null>(null)
  const operate = useMay('operate')
  const close = () => setFront(null)

  useKeys({
    'Ctrl-K': () => setFront(front === 'palette' ? null : 'palette'),
    '?': () => setFront('help'),
    '/': () => {
      const field = document.querySelector<HTMLInputElement>('[data-search]')
      if (field) field.focus()
      else navigate('/jobs?focus=1')
    },
    ...(menu ? { Escape: () => setMenu(false) } : {}),
    ...(operate ? { n: () => setFront('new') } : {}),
    ...Object.fromEntries(PLACES.map((place) => [`g ${place.letter}`, () => navigate(place.path)])),
  })

  // Before the effects of what the page shows, which may know a better name.
  useLayoutEffect(() => {
    document.title = title(PLACES.find((one) => (one.path === '/' ? here === '/' : here.startsWith(one.path)))?.name)
  }, [here])
  useEffect(() => void window.scrollTo(0, 0), [here])

  return (
    <div className={`shell ${menu ? 'menu-open' : ''}`}>
      <a className="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus() }}>
        Skip to the page
      </a>
      <aside className="side" id="side">
        <a className="brand" href="#/" onClick={() => setMenu(false)}>
          <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="8" className="brand-ground" />
            <path d="M8 9h16v4H12v3h9v4h-9v6H8z" className="brand-mark" />
          </svg>
          forge-jobs
        </a>
        <Nav onGo={() => setMenu(false)} />
        <footer className="side-foot">
          <ThemeChoice />
          <p className="faint cut" title={`${me.name}, ${me.role}`}>
            {me.name} · {me.read_only ? 'read-only' : me.role}
          </p>
          <p className="faint" title="Times are local; hover over one for UTC">
            {zone()}
          </p>
          {me.login && (
            <Button tone="quiet" icon="out" onClick={() => void post('logout').then(leave, sayProblem)}>
              Log out
            </Button>
          )}
        </footer>
      </aside>
      {menu && <button type="button" className="veil" aria-label="Close the menu" onClick={() => setMenu(false)} />}
      <div className="content">
        <div className="top">
          <Button tone="quiet" icon="menu" className="menu-button" aria-label="Menu" aria-expanded={menu} aria-controls="side" onClick={() => setMenu(!menu)} />
          <button type="button" className="find" onClick={() => setFront('palette')}>
            <Icon name="search" size={14} />
            <span>Go to…</span>
            <kbd>Ctrl K</kbd>
          </button>
          <span className="space" />
          <Live />
          {operate && (
            <Button icon="add" onClick={() => setFront('new')}>
              New job
            </Button>
          )}
          <Button tone="quiet" className="help-button" aria-label="Keyboard help" onClick={() => setFront('help')}>
            ?
          </Button>
        </div>
        {me.read_only && (
          <p className="strip" role="status">
            <Icon name="info" size={14} />
            {me.role === 'read' ? 'Your token may look, and change nothing.' : 'This server is read-only: nothing can be changed here.'}
          </p>
        )}
        <main id="main" tabIndex={-1}>
          {children}
        </main>
      </div>
      <JobDrawer />
      {front === 'palette' && <Palette close={close} />}
      {front === 'help' && <Help close={close} operate={operate} />}
      {front === 'new' && <NewJob close={close} />}
    </div>
  )
}

function Live() {
  useSecond()
  const state = useLiveState()
  const overview = useOverview()
  const ageS = overview.dataUpdatedAt ? (Date.now() - overview.dataUpdatedAt) / 1000 : null
  const away = overview.failureCount > 0
  const word = away ? 'Off' : state === 'live' ? 'Live' : state === 'polling' ? 'Polling' : 'Connecting'
  return (
    <span className={`live ${away ? 'off' : state}`} role="status" title={ageS === null ? undefined : `Last read ${duration(ageS)} ago`}>
      <i />
      {word}
      {away && ageS !== null && <span className="num"> · {duration(ageS)}</span>}
    </span>
  )
}

const THEMES: [Theme, string][] = [
  ['system', 'System'],
  ['light', 'Light'],
  ['dark', 'Dark'],
]

function ThemeChoice() {
  const chosen = useTheme()
  return (
    <div className="segments" role="group" aria-label="Theme">
      {THEMES.map(([theme, name]) => (
        <button key={theme} type="button" aria-pressed={chosen === theme} onClick={() => setTheme(theme)}>
          {name}
        </button>
      ))}
    </div>
  )
}
