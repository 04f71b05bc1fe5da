import { Icon, type IconName } from './icons'

type Props = React.ButtonHTMLAttributes<HTMLButtonElement> & { icon?: IconName; tone?: 'plain' | 'primary' | 'danger' | 'quiet'; busy?: boolean }

export function Button({ icon, tone = 'plain', busy, children, className = '', ...rest }: Props) {
  return (
    <button type="button" className={`button ${tone} ${children ? '' : 'bare'} ${className}`} disabled={busy || rest.disabled} aria-busy={busy || undefined} {...rest}>
      {icon && <Icon name={icon} size={14} />}
      {children}
    </button>
  )
}

export function LinkButton({ icon, tone = 'plain', children, ...rest }: React.AnchorHTMLAttributes<HTMLAnchorElement> & { icon?: IconName; tone?: string }) {
  return (
    <a className={`button ${tone}`} {...rest}>
      {icon && <Icon name={icon} size={14} />}
      {children}
    </a>
  )
}
