// What only the gateway has of E2B's: signed addresses of files, and errors of its own.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { AuthenticationError, NotFoundError, Sandbox, SandboxError } from 'e2b'

const { E2B_API_URL: apiUrl, E2B_SANDBOX_URL: sandboxUrl, E2B_API_KEY: apiKey } = process.env
const options = { apiKey, apiUrl, sandboxUrl }
const elsewhere = { skip: process.env.AGS_CLIENTS_TARGET === 'emulator' }
const named = { skip: process.env.AGS_CLIENTS_TARGET !== 'tls' }

async function withSandbox(use) {
  const sandbox = await Sandbox.create('base', { ...options, timeoutMs: 60_000, envs: { A: 'b' } })
  try {
    await use(sandbox)
  } finally {
    await sandbox.kill()
  }
}

test('signed urls', elsewhere, () =>
  withSandbox(async (sandbox) => {
    const form = new FormData()
    form.append('file', new Blob(['text ü\n']), 'x')
    const upload = await sandbox.uploadUrl('dir one/ä+.txt', { useSignatureExpiration: 600 })
    assert.equal((await fetch(upload, { method: 'POST', body: form })).status, 200)
    assert.equal(await sandbox.files.read('dir one/ä+.txt'), 'text ü\n')
    const download = await sandbox.downloadUrl('dir one/ä+.txt', { useSignatureExpiration: 600 })
    assert.equal(await (await fetch(download)).text(), 'text ü\n')
    assert.equal((await fetch(download.replace('signature=v1_', 'signature=v1_x'))).status, 401)
  }))

test('errors have classes', elsewhere, () =>
  withSandbox(async (sandbox) => {
    const stranger = { ...options, apiKey: `e2b_${'0'.repeat(64)}` }
    await assert.rejects(Sandbox.create('base', stranger), AuthenticationError)
    await assert.rejects(Sandbox.create('absent', options), /absent/)
    await assert.rejects(sandbox.createSnapshot(), (error) => error instanceof SandboxError && /501/.test(error.message))
    await sandbox.kill()
    await assert.rejects(sandbox.getInfo(), NotFoundError)
  }))

test('environment and timeout', elsewhere, () =>
  withSandbox(async (sandbox) => {
    assert.equal((await sandbox.commands.run('printf %s "$A"')).stdout, 'b')
    await sandbox.setTimeout(120_000)
    const { startedAt, endAt } = await sandbox.getInfo()
    assert.ok(endAt - startedAt > 100_000)
    assert.ok((await sandbox.getMetrics())[0].memTotal > 0)
  }))

test('a port has a host', named, () =>
  withSandbox(async (sandbox) => {
    await sandbox.files.write('/tmp/index.html', 'from inside')
    await sandbox.commands.run('python3 -m http.server 8001 --bind 127.0.0.1', { background: true, cwd: '/tmp' })
    const host = sandbox.getHost(8001)
    assert.equal(host, `8001-${sandbox.sandboxId}.${process.env.E2B_DOMAIN}`)
    const headers = { 'E2B-Traffic-Access-Token': sandbox.trafficAccessToken }
    let answer
    do {
      answer = await fetch(`https://${host}/index.html`, { headers })
    } while (answer.status === 502)
    assert.equal(await answer.text(), 'from inside')
  }))
