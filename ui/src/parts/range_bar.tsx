import { PRESETS, type Preset, type Window } from '../lib/range'
import { clock, local } from '../lib/time'
import { Button } from './button'

type Props = { window: Window; setWindow: (next: { preset?: Preset; fromS?: number; toS?: number }) => void }

export function RangeBar({ window, setWindow }: Props) {
  return (
    <div className="range">
      {window.preset === null && (
        <>
          <span className="num soft">
            {local(new Date(window.fromS * 1000)).slice(0, 16)} – {clock(new Date(window.toS * 1000), false)}
          </span>
          <Button tone="quiet" onClick={() => setWindow({ preset: '1h' })}>
            Reset
          </Button>
        </>
      )}
      <div className="segments" role="group" aria-label="Window">
        {(Object.keys(PRESETS) as Preset[]).map((preset) => (
          <button key={preset} type="button" aria-pressed={window.preset === preset} onClick={() => setWindow({ preset })}>
            {preset}
          </button>
        ))}
      </div>
    </div>
  )
}
