import type { ReactNode } from 'react'

export function PageHead({ title, note, children, as: Heading = 'h1' }: { title: ReactNode; note?: ReactNode; children?: ReactNode; as?: 'h1' | 'h2' }) {
  return (
    <header className="page-head">
      <div className="cut">
        <Heading className="cut">{title}</Heading>
        {note && <p className="soft">{note}</p>}
      </div>
      {children && <div className="page-acts">{children}</div>}
    </header>
  )
}
