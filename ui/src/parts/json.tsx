import { useMemo } from 'react'
import { Text } from './text'

const TOKEN = /("(?:[^"\\]|\\.)*"(?=\s*:))|("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)|(true|false|null)/g
const COLOURED = 20_000 // characters; more is shown in one colour, so that the page stays quick

/** JSON text laid out over lines, token by token: numbers and strings stay exactly as they are written. */
export function layOut(text: string): string {
  const out: string[] = []
  let depth = 0
  let at = 0
  const line = () => `\n${'  '.repeat(depth)}`
  while (at < text.length) {
    const char = text[at]!
    if (char === '"') {
      const end = /"(?:[^"\\]|\\.)*"?/y
      end.lastIndex = at
      const found = end.exec(text)![0]
      out.push(found)
      at += found.length
      continue
    }
    if (char === '{' || char === '[') {
      const close = /\s*[}\]]/y
      close.lastIndex = at + 1
      const empty = close.exec(text)
      if (empty) {
        out.push(char + empty[0].trim())
        at += 1 + empty[0].length
        continue
      }
      depth += 1
      out.push(char, line())
    } else if (char === '}' || char === ']') {
      depth = Math.max(0, depth - 1)
      out.push(line(), char)
    } else if (char === ',') out.push(char, line())
    else if (char === ':') out.push(': ')
    else if (!/\s/.test(char)) out.push(char)
    at += 1
  }
  return out.join('')
}

/** JSON with its parts in colours. Everything is a text node. */
export function Json({ text }: { text: string }) {
  const shown = useMemo(() => layOut(text), [text])
  if (shown.length > COLOURED) {
    return (
      <pre className="code" tabIndex={0}>
        <Text>{shown}</Text>
      </pre>
    )
  }
  const parts: React.ReactNode[] = []
  let at = 0
  for (const match of shown.matchAll(TOKEN)) {
    parts.push(shown.slice(at, match.index))
    const look = match[1] ? 'j-key' : match[2] ? 'j-text' : match[3] ? 'j-number' : 'j-word'
    parts.push(
      <span key={match.index} className={look}>
        <Text>{match[0]}</Text>
      </span>,
    )
    at = match.index + match[0].length
  }
  parts.push(shown.slice(at))
  return (
    <pre className="code" tabIndex={0}>
      {parts}
    </pre>
  )
}
