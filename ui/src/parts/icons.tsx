// Icons as paths on a 16 × 16 grid, drawn with the colour of the text around them.
const PATHS = {
  overview: 'M2.5 2.5h4.5v4.5h-4.5zM9 2.5h4.5v4.5h-4.5zM2.5 9h4.5v4.5h-4.5zM9 9h4.5v4.5h-4.5z',
  jobs: 'M2.5 4h11M2.5 8h11M2.5 12h7',
  scheduled: 'M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM8 5v3.2l2.2 1.4',
  retries: 'M13 7.5A5.2 5.2 0 1 0 11.4 12M13.2 3.4v4.2H9',
  dead: 'M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4',
  queues: 'M2.5 3.5h11v3h-11zM2.5 9.5h11v3h-11z',
  kinds: 'M2.5 8.2V2.5h5.7l5.3 5.3-5.7 5.7zM5.6 5.5v.2',
  limits: 'M2.5 11.5a5.5 5.5 0 0 1 11 0M8 11.5l2.6-3.4',
  workers: 'M3 4.5h10v7H3zM6 13.5h4M8 11.5v2M5.5 7h5',
  schedules: 'M3 3.8h10v9.4H3zM3 6.8h10M5.6 2.4v2.4M10.4 2.4v2.4M6 9.4h1.5',
  metrics: 'M2.5 13.5v-11M2.5 13.5h11M5 10.5l2.6-3.2 2.2 1.8 3.4-4.6',
  store: 'M3 4c0-1 2.2-1.8 5-1.8s5 .8 5 1.8-2.2 1.8-5 1.8S3 5 3 4zM3 4v8c0 1 2.2 1.8 5 1.8s5-.8 5-1.8V4M3 8c0 1 2.2 1.8 5 1.8s5-.8 5-1.8',
  audit: 'M4 2.2h5.5L12.5 5v8.8h-8.5zM6.2 7h4M6.2 9.6h4',
  add: 'M8 3v10M3 8h10',
  search: 'M7 2.8a4.2 4.2 0 1 0 0 8.4 4.2 4.2 0 0 0 0-8.4zM10.2 10.2l3.2 3.2',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  play: 'M5 3.2l7.5 4.8L5 12.8z',
  cancel: 'M4 4l8 8M12 4l-8 8',
  trash: 'M3 4.5h10M6.2 4.5v-2h3.6v2M4.5 4.5l.6 9h5.8l.6-9',
  menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11',
  theme: 'M8 2.2a5.8 5.8 0 1 0 0 11.6zM8 2.2a5.8 5.8 0 0 1 0 11.6z',
  copy: 'M5.5 5.5h7.5v7.5H5.5zM3 10.5v-7.5h7.5',
  edit: 'M3 13l.7-3L10.6 3l2.4 2.4-7 6.9z',
  check: 'M3 8.5l3.2 3.2L13 5',
  warn: 'M8 2.5l6 10.7H2zM8 6.5v3M8 11.4v.2',
  info: 'M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM8 7.3v3.5M8 5v.2',
  next: 'M6 3.5l4.5 4.5L6 12.5',
  down: 'M3.5 6L8 10.5 12.5 6',
  up: 'M3.5 10.5L8 6l4.5 4.5',
  save: 'M8 2.5v7.5M4.6 6.8L8 10.2l3.4-3.4M3 13.2h10',
  whole: 'M9.5 2.8h3.7v3.7M13.2 2.8L9 7M6.5 13.2H2.8V9.5M2.8 13.2L7 9',
  bolt: 'M9 2L4 9h3.5L7 14l5-7H8.5z',
  out: 'M6.5 3H3v10h3.5M6 8h7M10.4 5.2L13.2 8l-2.8 2.8',
} as const

export type IconName = keyof typeof PATHS

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.4" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  )
}
