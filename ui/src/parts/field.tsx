type Props = { label: string; note?: React.ReactNode; bad?: string | null; whole?: boolean; children: React.ReactNode }

/** A field of a form: the label is tied to it by being around it. */
export function Field({ label, note, bad, whole, children }: Props) {
  return (
    <label className={`field ${whole ? 'whole' : ''}`}>
      <span className="label">{label}</span>
      {children}
      {bad ? (
        <small className="bad" role="alert">
          {bad}
        </small>
      ) : (
        note && <small>{note}</small>
      )}
    </label>
  )
}
