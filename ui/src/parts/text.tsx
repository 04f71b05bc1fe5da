import { pieces } from '../lib/text'

/** Text from the store: text nodes only, with hidden characters escaped and marked. */
export function Text({ children }: { children: string | null | undefined }) {
  if (!children) return null
  const found = pieces(children)
  if (found.length === 1 && !found[0]!.escaped) return <bdi>{found[0]!.text}</bdi>
  return (
    <bdi>
      {found.map((piece, i) =>
        piece.escaped ? (
          <span key={i} className="escaped" title="a character that is not visible, or turns the reading direction">
            {piece.text}
          </span>
        ) : (
          piece.text
        ),
      )}
    </bdi>
  )
}
