import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

// Where `npm run dev` finds the API. The built page asks the server that it came from.
const api = process.env.FORGE_API ?? 'http://127.0.0.1:8787'

export default defineConfig({
  plugins: [react()],
  base: './', // the page may be mounted below any path
  build: {
    outDir: '../src/forge_jobs/ui/static',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // data: URLs of fonts and scripts are refused by the content security policy
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/api': { target: api, changeOrigin: true, headers: { origin: api } } } },
})
