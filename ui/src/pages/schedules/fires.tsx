import type { Fire } from '../../api/types'
import { Badge } from '../../parts/badge'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'

const ODD: Record<string, string> = { gap: 'the clock leaves this out', fold: 'the hour comes twice' }

export function Fires({ fires, zone }: { fires: Fire[]; zone: string }) {
  if (!fires.length) return <p className="faint">None any more</p>
  return (
    <ol className="fires">
      {fires.map((fire) => (
        <li key={fire.at}>
          <span className="num">{fire.local.slice(0, 19).replace('T', ' ')}</span>
          <span className="faint">
            <Text>{zone === 'UTC' ? 'UTC' : fire.local.slice(19)}</Text>
          </span>
          {fire.odd && (
            <Badge tone="warn" mark="clock">
              {ODD[fire.odd] ?? fire.odd}
            </Badge>
          )}
          <span className="soft">
            <Time at={fire.at} />
          </span>
        </li>
      ))}
    </ol>
  )
}
