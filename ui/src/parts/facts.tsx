import type { ReactNode } from 'react'

export type Fact = [name: string, value: ReactNode]

/** What there is to know of one thing: names and values. */
export function Facts({ facts, label, wide }: { facts: Fact[]; label: string; wide?: boolean }) {
  return (
    <section className="panel facts-panel" aria-label={label}>
      <dl className={wide ? 'facts wide' : 'facts'}>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  )
}
