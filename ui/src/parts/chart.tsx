import { useEffect, useLayoutEffect, useRef, useState } from 'react'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { useKeys } from '../lib/keys'
import { useShownTheme } from '../lib/theme'
import { clock, local } from '../lib/time'
import { Button } from './button'

export type Series = { label: string; colour: 1 | 2 | 3 | 4 | 5 | 6; values: (number | null)[]; fill?: boolean; dash?: boolean }

export const BYTES = [1024, 1024 ** 2, 1024 ** 3, 1024 ** 4]
export const MILLISECONDS = [1_000, 60_000, 3_600_000, 86_400_000]

type Props = {
  title: string
  times: number[]
  series: Series[]
  format: (value: number | null) => string
  /** Ticks are round in the largest of these that fits, as of minutes and of hours. */
  units?: readonly number[]
  /** Charts with one name share their crosshair. */
  group?: string
  zoom?: (fromS: number, toS: number) => void
  height?: number
  note?: React.ReactNode
}

/** Axis from 0 to a round number: ticks are 1, 2 or 5 times a power of ten, three to six of them. */
export function niceTicks(max: number, units: readonly number[] = []): number[] {
  const top = max > 0 ? max : 1
  const unit = units.findLast((one) => one <= top) ?? 1
  const power = 10 ** Math.floor(Math.log10(top / unit / 4))
  const step = unit * ([1, 2, 5, 10].map((m) => m * power).find((s) => top / unit / s <= 5) ?? 10 * power)
  return Array.from({ length: Math.ceil(top / step - 1e-9) + 1 }, (_, i) => i * step)
}

function colours(count: number): string[] {
  const style = getComputedStyle(document.documentElement)
  return Array.from({ length: count }, (_, i) => style.getPropertyValue(`--chart-${i + 1}`).trim())
}

/** Lines over time. Drag zooms, the legend hides lines, and the same numbers are there as a table. */
export function Chart({ title, times, series, format, units, group, zoom, height = 168, note }: Props) {
  const host = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set())
  const [at, setAt] = useState<{ index: number; left: number; width: number } | null>(null)
  const [asTable, setAsTable] = useState(false)
  const shade = useShownTheme()
  const latest = useRef({ format, zoom })
  latest.current = { format, zoom }
  const shown = series.filter((one) => !hidden.has(one.label))
  const max = Math.max(0, ...shown.flatMap((one) => one.values.map((v) => v ?? 0)))
  const ticks = niceTicks(max, units)
  const top = useRef(ticks)
  top.current = ticks
  const empty = !series.some((one) => one.values.some((v) => v !== null))
  const shape = series.map((one) => `${one.label}${one.colour}${one.fill}${one.dash}`).join() + shade + group + asTable + empty

  useLayoutEffect(() => {
    const element = host.current
    if (!element) return
    const style = getComputedStyle(document.documentElement)
    const [grid, faint] = ['--chart-grid', '--faint'].map((name) => style.getPropertyValue(name).trim())
    const palette = colours(6)
    const font = `11px ${style.getPropertyValue('--font')}`
    const axis = { stroke: faint, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } }
    const made = new uPlot(
      {
        width: element.clientWidth,
        height,
        legend: { show: false },
        padding: [8, 24, 0, 0],
        cursor: {
          lock: true, // a click pins the crosshair, another or Escape lets it go
          sync: group ? { key: group, setSeries: false } : undefined,
          drag: { x: true, y: false, dist: 6, setScale: false },
          points: { size: 6 },
        },
        select: { show: true, left: 0, top: 0, width: 0, height: 0 },
        scales: { x: { time: true }, y: { range: () => [0, top.current.at(-1)!] } },
        axes: [
          { ...axis, grid: { show: false }, size: 26, splits: (u, _, from, to) => timeTicks(from, to, u.bbox.width / devicePixelRatio), values: (u, splits) => splits.map((s) => xLabel(s, u.scales.x!.max! - u.scales.x!.min!)) },
          { ...axis, size: 58, splits: () => top.current, values: (_, splits) => splits.map((v) => latest.current.format(v)) },
        ],
        series: [
          {},
          ...series.map((one) => ({
            label: one.label,
            stroke: palette[one.colour - 1],
            width: 1.5,
            dash: one.dash ? [4, 3] : undefined,
            fill: one.fill ? `${palette[one.colour - 1]}1f` : undefined,
            points: { show: false, size: 5, fill: palette[one.colour - 1], filter: (u: uPlot, i: number) => lonely(u.data[i]!) },
            spanGaps: false,
          })),
        ],
        hooks: {
          setCursor: [
            (u) => {
              const index = u.cursor.idx
              setAt(index == null || u.cursor.left! < 0 ? null : { index, left: u.cursor.left! + u.bbox.left / devicePixelRatio, width: u.width })
            },
          ],
          setSelect: [
            (u) => {
              if (u.select.width < 6) return
              const [from, to] = [u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x')]
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
              latest.current.zoom?.(from, to)
              window.setTimeout(() => unpin(together(u, group))) // uPlot takes the end of a drag for a click, too
            },
          ],
        },
      },
      [times, ...series.map((one) => one.values)] as uPlot.AlignedData,
      element,
    )
    plot.current = made
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }))
    watch.observe(element)
    return () => {
      watch.disconnect()
      made.destroy()
      plot.current = null
      setAt(null) // else a chart that is empty now would keep Escape from the others
    }
  }, [shape, height])

  useKeys(at ? { Escape: () => plot.current && unpin(together(plot.current, group)) } : {})

  useEffect(() => {
    const u = plot.current
    if (!u) return
    series.forEach((one, i) => u.setSeries(i + 1, { show: !hidden.has(one.label) }))
    u.setData([times, ...series.map((one) => one.values)] as uPlot.AlignedData)
  }, [times, series, hidden])

  return (
    <figure className="chart panel" aria-label={title}>
      <figcaption>
        <h2>{title}</h2>
        {note && <span className="faint">{note}</span>}
        <span className="legend">
          {series.map((one) => (
            <button
              key={one.label}
              type="button"
              className={`key key-${one.colour} ${one.dash ? 'dash' : ''}`}
              aria-pressed={!hidden.has(one.label)}
              onClick={() => setHidden((old) => new Set(old.has(one.label) ? [...old].filter((l) => l !== one.label) : [...old, one.label]))}
            >
              {one.label}
            </button>
          ))}
        </span>
        <Button tone="quiet" aria-pressed={asTable} onClick={() => setAsTable(!asTable)}>
          {asTable ? 'Chart' : 'Table'}
        </Button>
      </figcaption>
      {asTable ? (
        <ChartTable times={times} series={series} format={format} />
      ) : empty ? (
        <p className="chart-empty faint" ref={(box) => box?.style.setProperty('height', `${height}px`)}>
          No data in this window
        </p>
      ) : (
        <div className="plot" ref={host}>
          {at && times[at.index] !== undefined && (
            <div className={`tip ${at.left > at.width * 0.65 ? 'flip' : ''}`} ref={(tip) => tip?.style.setProperty('--x', `${at.left}px`)}>
              <strong className="num">{local(new Date(times[at.index]! * 1000))}</strong>
              {shown.map((one) => (
                <span key={one.label} className={`key-${one.colour}`}>
                  {one.label}
                  <b className="num">{format(one.values[at.index] ?? null)}</b>
                </span>
              ))}
            </div>
          )}
        </div>
      )}
    </figure>
  )
}

/** Values between gaps: no line leads to them, so they are drawn as points. */
function lonely(values: uPlot.AlignedData[number]): number[] {
  return Array.from(values.keys()).filter((i) => values[i] != null && values[i - 1] == null && values[i + 1] == null)
}

function together(one: uPlot, group: string | undefined): uPlot[] {
  return group ? uPlot.sync(group).plots : [one]
}

function unpin(plots: uPlot[]): void {
  for (const one of plots) {
    ;(one.cursor as { _lock?: boolean })._lock = false // uPlot has a switch for it, but only a click turns it
    one.setCursor({ left: -10, top: -10 })
  }
}

const STEPS_S = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800]
const MOST_TIMES = 7
const LABEL_PX = 62

/** Both ends, and between them round local times that leave room: seven at most. */
export function timeTicks(from: number, to: number, widthPx: number): number[] {
  const span = to - from
  if (!(span > 0) || widthPx <= 0) return [from]
  const most = Math.max(1, Math.min(MOST_TIMES - 2, Math.floor(widthPx / LABEL_PX) - 2))
  const step = STEPS_S.find((one) => span / one <= most + 1) ?? STEPS_S.at(-1)! * Math.ceil(span / STEPS_S.at(-1)! / most)
  const shift = new Date(to * 1000).getTimezoneOffset() * 60
  const room = (LABEL_PX / widthPx) * span
  const inner: number[] = []
  for (let at = Math.ceil((from - shift) / step) * step + shift; at < to - room; at += step) if (at > from + room) inner.push(at)
  return [from, ...inner.slice(0, MOST_TIMES - 2), to]
}

function xLabel(seconds: number, span: number): string {
  const at = new Date(seconds * 1000)
  if (span > 2 * 86_400) return local(at).slice(5, 10)
  return clock(at, span <= 600)
}

function ChartTable({ times, series, format }: Pick<Props, 'times' | 'series' | 'format'>) {
  return (
    <div className="chart-table" tabIndex={0}>
      <table className="table small">
        <thead>
          <tr>
            <th scope="col">time</th>
            {series.map((one) => (
              <th key={one.label} scope="col" className="right">
                {one.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times
            .map((time, i) => (
              <tr key={time}>
                <td className="num">{local(new Date(time * 1000))}</td>
                {series.map((one) => (
                  <td key={one.label} className="right num">
                    {format(one.values[i] ?? null)}
                  </td>
                ))}
              </tr>
            ))
            .reverse()}
        </tbody>
      </table>
    </div>
  )
}
