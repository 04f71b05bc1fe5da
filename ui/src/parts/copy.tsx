import { Button } from './button'
import { say } from './toast'

/** Copies what `text` gives when it is pressed. */
export function Copy({ text, children, label }: { text: () => string; children?: React.ReactNode; label?: string }) {
  async function copy() {
    try {
      await navigator.clipboard.writeText(text())
      say('Copied')
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
