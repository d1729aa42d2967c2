// Drives examples/browser.html in a Chromium; leaves screenshots and what it downloads in a directory.
//     node drive.mjs CHROMIUM SCENARIO PAGE_URL DIRECTORY

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const [executablePath, scenario, address, directory] = process.argv.slice(2)
const { AGS_GATEWAY_URL: gateway, AGS_GATEWAY_KEY: key } = process.env
const quiet = ['gpu', 'quic', 'background-networking', 'component-update', 'sync'].map((feature) => `--disable-${feature}`)
const DIGITS = [1, 2, 3, 4, 5, 6, 7, 8, 9]

const button = (page, name) => page.getByRole('button', { name, exact: true })
const output = (page) => page.getByRole('log', { name: 'Output' })
const shows = (page, text) => page.getByText(text).first().waitFor()
const screenshot = (page, name) => page.screenshot({ path: join(directory, `${name}.png`), fullPage: true })

// Past the page: what the API itself says and does.
async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' }
  const response = await fetch(`${gateway}/v1/instances/${path}`, { method, headers, body: body && JSON.stringify(body) })
  assert.ok(response.ok, `${method} ${path}: ${response.status}`)
  return response.status === 204 ? undefined : response.json()
}

async function exec(id, cmd) {
  assert.equal((await call('POST', `${id}/exec`, { cmd })).exit_code, 0)
}

async function fillIn(page, secret) {
  await page.getByLabel('Gateway').fill(gateway)
  await page.getByLabel('Key').fill(secret)
}

async function start(page) {
  await fillIn(page, key)
  await button(page, 'Start').click()
  await page.getByText('RUNNING', { exact: true }).waitFor()
  return page.locator('#instance').textContent()
}

async function run(page, line, ending) {
  await page.getByLabel('Shell line').fill(line)
  await button(page, 'Run').click()
  if (ending) await shows(page, ending)
}

// Says some lines, then waits to be told to go on, and tells that it has.
const part = (number) => `for i in $(seq ${number}1 ${number}9); do echo line $i; done; touch /tmp/said${number}`
const pause = (number) => `until [ -e /tmp/go${number} ]; do sleep 0.02; done`
const PARTS = [1, 2, 3]

// The page's clock stands still: it comes back when it is told to, and by then the command has said more.
async function missesAPart(page, id, number) {
  await button(page, 'Break the connection').click()
  await shows(page, 'connecting again')
  await exec(id, `touch /tmp/go${number}; until [ -e /tmp/said${number} ]; do sleep 0.02; done`)
  const missed = output(page).getByText(`line ${number}9`)
  assert.equal(await missed.count(), 0)
  await page.clock.runFor(10_000)
  await missed.waitFor()
  await shows(page, 'Connected again')
}

// Output comes while the command runs, and after a broken connection where it was left: by the resume token, then by a ticket.
async function followsAndResumes(page, id) {
  const parts = PARTS.map((number) => `${pause(number)}; ${part(number)}`)
  await run(page, ['echo to stderr >&2', ...parts, pause(4), 'exit 3'].join('; '))
  await output(page).getByText('to stderr').waitFor()
  await exec(id, 'touch /tmp/go1')
  await output(page).getByText('line 19').waitFor()
  await missesAPart(page, id, 2)
  await missesAPart(page, id, 3)
  await screenshot(page, 'resumed')
  await exec(id, 'touch /tmp/go4')
  await shows(page, 'Ended with exit code 3.')
  const printed = (await output(page).locator('.stdout').allTextContents()).join('')
  assert.deepEqual(printed.match(/\d+/g).map(Number), PARTS.flatMap((tens) => DIGITS.map((ones) => 10 * tens + ones)))
  assert.equal((await output(page).locator('.stderr').allTextContents()).join(''), 'to stderr\n')
}

async function interrupts(page) {
  await run(page, 'echo waiting; exec sleep 1000')
  await output(page).getByText('waiting').waitFor()
  await button(page, 'Interrupt').click()
  await shows(page, 'Ended: SIGINT.')
}

async function showsMarkupAsText(page) {
  await run(page, "echo '<b id=bold>bold</b>'", 'Ended with exit code 0.')
  assert.equal(await output(page).textContent(), '<b id=bold>bold</b>\n')
  assert.equal(await page.locator('#bold').count(), 0)
}

async function movesFiles(page) {
  const content = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 256))
  await writeFile(join(directory, 'up.bin'), content)
  await page.getByLabel('Path in the sandbox').fill('dir one/ä+.bin')
  await page.getByLabel('File from here').setInputFiles(join(directory, 'up.bin'))
  await button(page, 'Upload').click()
  await shows(page, 'dir one/ä+.bin: 100000 bytes')
  const arriving = page.waitForEvent('download')
  await button(page, 'Download').click()
  const download = await arriving
  assert.deepEqual(await readFile(await download.path()), content)
}

async function keepsNothing(page) {
  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href])
  assert.deepEqual(kept, [0, 0, '', address])
}

async function story(page) {
  const asked = []
  page.on('request', (request) => asked.push(request.url()))
  page.on('websocket', (socket) => asked.push(socket.url()))
  const id = await start(page)
  try {
    await followsAndResumes(page, id)
    await interrupts(page)
    await showsMarkupAsText(page)
    await movesFiles(page)
  } finally {
    await button(page, 'Stop the instance').click()
    await page.getByText('STOPPED', { exact: true }).waitFor()
  }
  assert.ok(await button(page, 'Run').isDisabled())
  await screenshot(page, 'stopped')
  const { status, stop_reason: reason } = await call('GET', id)
  assert.deepEqual([status, reason], ['STOPPED', 'manual'])
  await keepsNothing(page)
  assert.ok(asked.some((url) => url.includes('/exec/ws')) && asked.some((url) => /execs\/exec\w+\/ws\?after=/.test(url)))
  assert.ok(asked.every((url) => !url.includes(key.slice(5))), 'the key was in an address')
}

// What the gateway refuses is said, and nothing is left half done.
async function refusals(page) {
  await fillIn(page, `agsk_${'0'.repeat(64)}`)
  await button(page, 'Start').click()
  await page.getByRole('alert').getByText('401 unauthenticated').waitFor()
  await page.getByLabel('Gateway').fill('http://127.0.0.1:1')
  await button(page, 'Start').click()
  await page.getByRole('alert').getByText('The gateway cannot be reached').waitFor()
  await screenshot(page, 'refused')
  assert.ok(await button(page, 'Start').isEnabled())
}

// A stop that was not the page's own is seen by it.
async function stoppedElsewhere(page) {
  const id = await start(page)
  await run(page, 'echo begun; exec sleep 1000')
  await output(page).getByText('begun').waitFor()
  await call('DELETE', id)
  await page.getByText('STOPPED', { exact: true }).waitFor()
  await page.getByText(/^(Ended: lost|The connection ended: )/).waitFor()
  assert.ok(await button(page, 'Start').isEnabled())
}

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--no-first-run', ...quiet] })
try {
  const page = await browser.newPage({ viewport: { width: 1100, height: 900 } })
  const faults = []
  page.on('pageerror', (error) => faults.push(String(error)))
  await page.clock.install()
  await page.goto(address)
  await page.clock.pauseAt(Date.now() + 60_000)
  await { story, refusals, stoppedElsewhere }[scenario](page)
  assert.deepEqual(faults, [])
} finally {
  await browser.close()
}
