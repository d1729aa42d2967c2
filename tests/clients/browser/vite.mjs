// Opens a preview of Vite's dev server in a Chromium, changes a module in the sandbox, and sees the page change without a reload.
//     node vite.mjs CHROMIUM LINK MODULE_URL DIRECTORY

import assert from 'node:assert/strict'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const [executablePath, link, moduleUrl, directory] = process.argv.slice(2)
const quiet = ['gpu', 'quic', 'background-networking', 'component-update', 'sync'].map((feature) => `--disable-${feature}`)
const TIMEOUT = 30_000

const shows = (page, text) => page.getByText(text, { exact: true }).waitFor()
const screenshot = (page, name) => page.screenshot({ path: join(directory, `${name}.png`) })

// Past the page: the file in the sandbox.
async function change(text) {
  const headers = { Authorization: `Bearer ${process.env.AGS_GATEWAY_KEY}` }
  const body = `document.querySelector('#note').textContent = '${text}'\n\nimport.meta.hot.accept()\n`
  const response = await fetch(moduleUrl, { method: 'PUT', headers, body })
  assert.equal(response.status, 200, await response.text())
}

// Vite's page tries another address when the first one fails: all of them are kept.
function follow(page) {
  const seen = { sockets: [], messages: [], closed: 0, loads: 0, faults: [] }
  page.on('pageerror', (error) => seen.faults.push(String(error)))
  page.on('load', () => (seen.loads += 1))
  page.on('websocket', (socket) => {
    seen.sockets.push(new URL(socket.url()))
    socket.on('framereceived', ({ payload }) => seen.messages.push(JSON.parse(payload)))
    socket.on('close', () => (seen.closed += 1))
  })
  return seen
}

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--no-first-run', ...quiet] })
try {
  const page = await browser.newPage({ viewport: { width: 800, height: 300 } })
  page.setDefaultTimeout(TIMEOUT)
  const seen = follow(page)
  // A change goes to those that are connected: Vite's page says when it is.
  const connected = page.waitForEvent('console', (message) => message.text() === '[vite] connected.')
  await Promise.all([connected, page.goto(link)])
  await shows(page, 'From the sandbox')
  await shows(page, 'as it was uploaded')
  await screenshot(page, 'opened')
  await page.evaluate(() => (window.marker = 'of the first load'))

  for (const text of ['changed once', 'changed twice']) {
    await change(text)
    await shows(page, text)
    assert.equal(await page.evaluate(() => window.marker), 'of the first load')
  }
  await screenshot(page, 'changed')

  const host = new URL(link).host
  assert.deepEqual(seen.sockets.map((socket) => [socket.protocol, socket.host]), [['ws:', host]])
  assert.equal(new URL(page.url()).host, host)
  assert.deepEqual([...new Set(seen.messages.map(({ type }) => type))], ['connected', 'update'])
  assert.deepEqual([seen.closed, seen.loads, seen.faults], [0, 1, []])
} finally {
  await browser.close()
}
