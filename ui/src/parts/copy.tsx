import { Button } from './button'
import { say } from './toast'

/** Copies what `text` gives when it is pressed. */
export function Copy({ text, children, label, said = 'Copied' }: { text: () => string; children?: React.ReactNode; label?: string; said?: string }) {
  async function copy() {
    try {
      await navigator.clipboard.writeText(text())
      say(said)
    } catch {
      say('The browser does not allow copying here', true)
    }
  }
  return (
    <Button tone="quiet" icon="copy" aria-label={label} onClick={() => void copy()}>
      {children}
    </Button>
  )
}
