import { useEffect, useId, useRef, useState } from 'react'
import { Problem } from '../api/client'
import { Button } from './button'
import { Icon } from './icons'
import { ProblemLine } from './states'

type Props = { title: string; close: () => void; children: React.ReactNode; side?: boolean; wide?: boolean }

/** In front of the page: the browser keeps focus inside, Escape closes it, and focus goes back to where it was. */
export function Dialog({ title, close, children, side, wide }: Props) {
  const element = useRef<HTMLDialogElement>(null)
  const name = useId()
  useEffect(() => {
    const dialog = element.current
    const before = document.activeElement
    dialog?.showModal()
    // The first field, else what one came to press, rather than the button that closes.
    dialog?.querySelector<HTMLElement>('.dialog-body :is(input, textarea, select), footer .button:is(.primary, .danger)')?.focus()
    return () => {
      dialog?.close()
      if (before instanceof HTMLElement) before.focus()
    }
  }, [])
  return (
    <dialog
      ref={element}
      className={`dialog ${side ? 'side' : ''} ${wide ? 'wide' : ''}`}
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault()
        close()
      }}
      onMouseDown={(event) => event.target === element.current && close()}
    >
      <div className="dialog-body">
        <header>
          <h2 id={name}>{title}</h2>
          <button type="button" className="button quiet bare" onClick={close} aria-label="Close">
            <Icon name="cancel" size={14} />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  )
}

type ConfirmProps = {
  title: string
  children?: React.ReactNode
  act: string
  danger?: boolean
  ready?: boolean
  close: () => void
  run: () => Promise<unknown>
}

/** Asks before an act, shows that it runs, and what the server said if it failed. */
export function Confirm({ title, children, act, danger, ready = true, close, run }: ConfirmProps) {
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  async function go() {
    setBusy(true)
    setFailed(null)
    try {
      await run()
      close()
    } catch (error) {
      setFailed(error instanceof Problem ? error : new Problem(0, 'error', String(error), null))
      setBusy(false)
    }
  }
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void go()
        }}
      >
        <div className="dialog-text">{children}</div>
        {failed && <ProblemLine problem={failed} />}
        <footer>
          <Button onClick={close}>Back</Button>
          <Button type="submit" tone={danger ? 'danger' : 'primary'} busy={busy} disabled={!ready} autoFocus>
            {act}
          </Button>
        </footer>
      </form>
    </Dialog>
  )
}
