import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { Problem } from './api/client'
import { App } from './app'
import { startTheme } from './lib/theme'
import './styles/tokens.css'
import './styles/base.css'
import './styles/shell.css'
import './styles/parts.css'
import './styles/table.css'
import './styles/chart.css'
import './styles/pages.css'

startTheme()
const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 1_000,
      refetchOnWindowFocus: false, // live.ts reads again when the tab is shown
      retry: (count, error) => error instanceof Problem && error.passing && count < 2,
      retryDelay: (count, error) => (error instanceof Problem && error.retryAfterS ? Math.min(error.retryAfterS, 10) * 1_000 : 500 * 2 ** count),
    },
  },
})

createRoot(document.getElementById('app')!).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
)
