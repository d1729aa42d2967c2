// Every step of a sandbox's life in JavaScript: the tool through the gateway's own API, the sandbox with E2B's SDK, unmodified.
//
//     set -a; . .ags-gateway/dev.env; set +a
//     npm install @e2b/code-interpreter
//     node examples/sdk-story.mjs

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'

import { Sandbox } from '@e2b/code-interpreter'

const { AGS_GATEWAY_URL: gateway, AGS_GATEWAY_KEY: key } = process.env
assert.ok(gateway && key, 'set AGS_GATEWAY_URL and AGS_GATEWAY_KEY')

// The same key, behind the prefix that the SDK insists on. E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say the same.
const options = { apiUrl: `${gateway}/e2b`, sandboxUrl: gateway, apiKey: `e2b_${key.replace(/^agsk_/, '')}` }

// A call of the gateway's own API; what it refuses says what to do about it.
async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${key}` }
  if (body) headers['Content-Type'] = 'application/json'
  const response = await fetch(`${gateway}/v1/${path}`, { method, headers, body: body && JSON.stringify(body) })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
  return text ? JSON.parse(text) : undefined
}

function createTool(name) {
  // The gateway waits until it is ACTIVE: there is nothing to poll.
  return call('POST', 'tools?wait=60s', { name, type: 'code-interpreter', default_timeout: '10m' })
}

async function start(tool) {
  const sandbox = await Sandbox.create(tool.name, { ...options, timeoutMs: 600_000, metadata: { example: tool.name } })
  const { state, endAt } = await sandbox.getInfo()
  console.log('sandbox:', sandbox.sandboxId, state, 'until', endAt.toISOString())
  return sandbox
}

// One that is waited for, and one in the background with callbacks.
async function runCommands(sandbox) {
  const { stdout } = await sandbox.commands.run('echo $((40 + 2))')
  console.log('command:', stdout.trim())
  let heard = ''
  const running = await sandbox.commands.run('for i in 1 2 3; do echo line $i; sleep 0.1; done; echo done >&2', {
    background: true,
    onStdout: (text) => {
      heard += text
    },
    onStderr: (text) => console.log('stderr:', text.trim()),
  })
  console.log('background: pid', running.pid)
  await running.wait()
  console.log('background:', heard.trim().split('\n'))
}

// Variables last from run to run; the value of the last line is the result.
async function runCode(sandbox) {
  await sandbox.runCode('numbers = [1, 2, 3]')
  const execution = await sandbox.runCode("print('adding'); sum(numbers)", {
    onStdout: (message) => console.log('code says:', message.line.trim()),
  })
  console.log('code:', execution.text)
  console.log('code fails:', (await sandbox.runCode('1 / 0')).error.name)
}

// One up, as it lies here, and what became of it down again.
async function moveFiles(sandbox) {
  const directory = await mkdtemp(join(tmpdir(), 'story-'))
  try {
    const here = join(directory, 'hello.txt')
    await writeFile(here, 'hello from outside\n')
    await sandbox.files.write('/tmp/hello.txt', Readable.toWeb(createReadStream(here)))
    await sandbox.commands.run('tr a-z A-Z < /tmp/hello.txt > /tmp/answer.txt')
    await writeFile(here, await sandbox.files.read('/tmp/answer.txt', { format: 'bytes' }))
    console.log('file:', (await readFile(here, 'utf8')).trim())
  } finally {
    await rm(directory, { recursive: true })
  }
}

// The address of a port, and the page that a server in the sandbox has there.
async function openUrl(sandbox) {
  let serving
  const served = new Promise((resolve) => {
    serving = resolve
  })
  const server = await sandbox.commands.run('cd /tmp && exec python3 -um http.server 8000 2>&1', {
    background: true,
    onStdout: serving,
  })
  await served
  const { url } = await call('GET', `instances/${sandbox.sandboxId}/url?port=8000`)
  console.log('url:', url)
  const page = await fetch(`${url}answer.txt`, { headers: { Authorization: `Bearer ${key}` } })
  assert.equal(page.status, 200)
  console.log('page:', (await page.text()).trim())
  await server.kill()
}

// By E2B's SDK, with the metadata as the filter, and by the gateway's own API.
async function listRunning(tool) {
  const query = { metadata: { example: tool.name }, state: ['running'] }
  const sandboxes = await Sandbox.list({ ...options, query }).nextItems()
  const { items } = await call('GET', `instances?tool=${tool.id}&status=RUNNING`)
  const ids = items.map((instance) => instance.id)
  assert.deepEqual(sandboxes.map((sandbox) => sandbox.sandboxId), ids)
  return ids
}

async function use(sandbox, tool) {
  await runCommands(sandbox)
  await runCode(sandbox)
  await moveFiles(sandbox)
  await openUrl(sandbox)
  console.log('running:', await listRunning(tool))
}

const tool = await createTool(`story-${randomUUID().slice(0, 8)}`)
try {
  console.log('tool:', tool.id, tool.name, tool.status)
  assert.equal(tool.status, 'ACTIVE', tool.status_reason)
  const sandbox = await start(tool)
  try {
    await use(sandbox, tool)
  } finally {
    await sandbox.kill()
  }
  assert.deepEqual(await listRunning(tool), [])
  const { status, stop_reason: reason } = await call('GET', `instances/${sandbox.sandboxId}`)
  console.log('killed:', status, reason)
} finally {
  await call('DELETE', `tools/${tool.id}`)
}
console.log('deleted')
