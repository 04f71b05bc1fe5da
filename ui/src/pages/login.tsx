import { useState } from 'react'
import { post, Problem } from '../api/client'
import { Button } from '../parts/button'
import { Field } from '../parts/field'
import { ProblemLine } from '../parts/states'

export function Login({ entered }: { entered: () => Promise<void> }) {
  const [token, setToken] = useState('')
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  async function enter() {
    setBusy(true)
    setFailed(null)
    try {
      await post('login', { token: token.trim() })
      await entered()
    } catch (error) {
      setFailed(error as Problem)
      setBusy(false)
    }
  }
  return (
    <main className="alone">
      <form
        className="panel login"
        onSubmit={(event) => {
          event.preventDefault()
          void enter()
        }}
      >
        <svg width="34" height="34" viewBox="0 0 32 32" aria-hidden="true">
          <rect width="32" height="32" rx="8" className="brand-ground" />
          <path d="M8 9h16v4H12v3h9v4h-9v6H8z" className="brand-mark" />
        </svg>
        <h1>forge-jobs</h1>
        <Field label="Token" note="One of the tokens that the server was started with">
          <input type="password" autoComplete="current-password" value={token} autoFocus onChange={(event) => setToken(event.target.value)} />
        </Field>
        {failed && <ProblemLine problem={failed} />}
        <Button type="submit" tone="primary" busy={busy} disabled={!token.trim()}>
          Log in
        </Button>
      </form>
    </main>
  )
}
