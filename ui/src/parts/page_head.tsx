import type { ReactNode } from 'react'

export function PageHead({ title, note, children }: { title: ReactNode; note?: ReactNode; children?: ReactNode }) {
  return (
    <header className="page-head">
      <div className="cut">
        <h1 className="cut">{title}</h1>
        {note && <p className="soft">{note}</p>}
      </div>
      {children && <div className="page-acts">{children}</div>}
    </header>
  )
}
