// Text from the store may hold characters that turn the reading direction or that nobody sees. They are shown, escaped.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\u{e0001}|[\u{e0020}-\u{e007f}]/gu

export type Piece = { text: string; escaped: boolean }

/** `text` in pieces; those that stand for a hidden character say so. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = []
  let at = 0
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > at) found.push({ text: text.slice(at, match.index), escaped: false })
    const code = match[0].codePointAt(0) ?? 0
    found.push({ text: `\\u{${code.toString(16).padStart(4, '0')}}`, escaped: true })
    at = match.index + match[0].length
  }
  if (at < text.length) found.push({ text: text.slice(at), escaped: false })
  return found
}

/** `text` in one line for places that take no elements: titles, labels. */
export function plain(text: string): string {
  return pieces(text)
    .map((piece) => piece.text)
    .join('')
}

/** `1 job`, `2 jobs`. */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`
}

/** `free_disk` as `Free disk`. */
export function heading(name: string): string {
  const words = name.replaceAll(/[_-]/g, ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}
