// What the tab is called.
import { useEffect } from 'react'
import { plain } from './text'

const PRODUCT = 'forge-jobs'

export function title(name?: string): string {
  return name ? `${plain(name)} · ${PRODUCT}` : PRODUCT
}

/** A name of its own for the tab while the component is shown; the shell names it after the page. */
export function useTitle(name: string | undefined): void {
  useEffect(() => {
    if (name === undefined) return
    const before = document.title
    const own = (document.title = title(name))
    return () => {
      if (document.title === own) document.title = before // else another page has named it
    }
  }, [name])
}
