import { Dialog } from '../parts/dialog'
import { PLACES } from './nav'

export function Help({ close, operate }: { close: () => void; operate: boolean }) {
  const general: [string, string][] = [
    ['Ctrl K', 'Go to a page, queue, kind or job'],
    ['/', 'Search jobs'],
    ['j k', 'Next row, row before'],
    ['Enter o', 'Open the row, a job beside its list'],
    ['f', 'The open job as a page'],
    ...(operate
      ? ([
          ['x', 'Select the row'],
          ['r c d', 'Retry, cancel, delete (asks first)'],
          ['n', 'New job'],
        ] as [string, string][])
      : []),
    ['Esc', 'Close'],
    ['?', 'This help'],
  ]
  return (
    <Dialog title="Keyboard" close={close} wide>
      <div className="help">
        <Keys rows={general} />
        <Keys rows={PLACES.map((place) => [`g ${place.letter}`, place.name])} />
      </div>
    </Dialog>
  )
}

function Keys({ rows }: { rows: [string, string][] }) {
  return (
    <dl>
      {rows.map(([keys, says]) => (
        <div key={keys}>
          <dt>
            {keys.split(' ').map((key) => (
              <kbd key={key}>{key}</kbd>
            ))}
          </dt>
          <dd>{says}</dd>
        </div>
      ))}
    </dl>
  )
}
