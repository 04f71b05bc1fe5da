import { cloneElement, useId, type ReactElement, type ReactNode } from 'react'

type Control = ReactElement<{ id?: string; 'aria-describedby'?: string; 'aria-invalid'?: boolean }>
type Props = { label: string; note?: ReactNode; bad?: string | null; whole?: boolean; children: Control | [Control, ReactNode] }

/** A field of a form: its label is its name, the note or the fault below describe it. */
export function Field({ label, note, bad, whole, children }: Props) {
  const id = useId()
  const [control, rest] = Array.isArray(children) ? children : [children, null]
  return (
    <div className={`field ${whole ? 'whole' : ''}`}>
      <label htmlFor={id}>{label}</label>
      {cloneElement(control, { id, 'aria-describedby': bad || note ? `${id}-note` : undefined, 'aria-invalid': bad ? true : undefined })}
      {rest}
      {bad ? (
        <small className="bad" role="alert" id={`${id}-note`}>
          {bad}
        </small>
      ) : (
        note && <small id={`${id}-note`}>{note}</small>
      )}
    </div>
  )
}
