// The JavaScript e2b SDK, unmodified: sandboxes, commands, PTY, files, watching.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { CommandExitError, NotFoundError, Sandbox, TimeoutError } from 'e2b'

const { E2B_API_URL: apiUrl, E2B_SANDBOX_URL: sandboxUrl, E2B_API_KEY: apiKey } = process.env
const options = { apiKey, apiUrl, sandboxUrl }

async function withSandbox(use) {
  const sandbox = await Sandbox.create('base', { ...options, timeoutMs: 60_000 })
  try {
    await use(sandbox)
  } finally {
    await sandbox.kill()
  }
}

async function eventually(check) {
  for (let tries = 0; tries < 250; tries++) {
    if (await check()) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.fail('it did not happen in time')
}

test('a sandbox lives its life', async () => {
  const sandbox = await Sandbox.create('base', { ...options, timeoutMs: 60_000, metadata: { 'a k': '测试' } })
  assert.equal(await sandbox.isRunning(), true)
  const info = await sandbox.getInfo()
  assert.deepEqual(info.metadata, { 'a k': '测试' })
  const listed = await Sandbox.list({ ...options, query: { metadata: { 'a k': '测试' } } }).nextItems()
  assert.ok(listed.some((other) => other.sandboxId === sandbox.sandboxId))
  assert.equal(await sandbox.kill(), true)
  assert.equal(await sandbox.isRunning(), false)
  assert.equal(await sandbox.kill(), false)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId, options), NotFoundError)
})

test('commands', () =>
  withSandbox(async (sandbox) => {
    const result = await sandbox.commands.run('echo out; echo err >&2; pwd', { cwd: '/tmp' })
    assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['out\n/tmp\n', 'err\n', 0])
    await assert.rejects(sandbox.commands.run('exit 3'), (error) => error instanceof CommandExitError && error.exitCode === 3)
    await assert.rejects(sandbox.commands.run('sleep 10', { timeoutMs: 500 }), TimeoutError)
    const cat = await sandbox.commands.run('cat', { background: true, stdin: true })
    await sandbox.commands.sendStdin(cat.pid, 'hello\n')
    await eventually(() => cat.stdout === 'hello\n')
    assert.equal(await sandbox.commands.kill(cat.pid), true)
    await assert.rejects(cat.wait(), CommandExitError)
    await eventually(async () => !(await sandbox.commands.kill(cat.pid)))
  }))

test('a terminal', () =>
  withSandbox(async (sandbox) => {
    let output = ''
    const decoder = new TextDecoder()
    const terminal = await sandbox.pty.create({
      cols: 80,
      rows: 24,
      onData: (data) => {
        output += decoder.decode(data, { stream: true })
      },
    })
    await sandbox.pty.resize(terminal.pid, { cols: 101, rows: 33 })
    await sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode('stty size; exit\n'))
    await terminal.wait()
    assert.match(output, /33 101/)
  }))

test('files', () =>
  withSandbox(async (sandbox) => {
    const written = await sandbox.files.write('dir one/ä.txt', 'text ü\n')
    assert.equal(written.path, '/home/user/dir one/ä.txt')
    assert.equal(await sandbox.files.read('dir one/ä.txt'), 'text ü\n')
    await sandbox.files.write([
      { path: 'many/1', data: 'one' },
      { path: 'many/2', data: new Uint8Array([1, 2, 255]).buffer },
    ])
    assert.deepEqual([...(await sandbox.files.read('many/2', { format: 'bytes' }))], [1, 2, 255])
    assert.deepEqual((await sandbox.files.list('many')).map((entry) => entry.name), ['1', '2'])
    await sandbox.files.rename('many/1', 'many/3')
    assert.equal(await sandbox.files.exists('many/1'), false)
    await sandbox.files.remove('many')
    await assert.rejects(sandbox.files.read('many/3'), NotFoundError)
  }))

test('watching', () =>
  withSandbox(async (sandbox) => {
    await sandbox.files.makeDir('watched/old')
    const events = []
    const exits = []
    const watch = await sandbox.files.watchDir('watched', (event) => events.push(`${event.type} ${event.name}`), {
      recursive: true,
      onExit: (error) => exits.push(error),
    })
    await sandbox.files.write('watched/new.txt', 'x')
    await sandbox.commands.run('mkdir -p watched/made/later')
    await eventually(() => events.includes('create made/later'))
    await sandbox.commands.run('mv watched/new.txt watched/made/later/ü && rm watched/made/later/ü')
    await eventually(() => events.includes('remove made/later/ü'))
    assert.deepEqual(
      events.filter((event) => /new.txt|ü/.test(event)),
      ['create new.txt', 'chmod new.txt', 'write new.txt', 'rename new.txt', 'create made/later/ü', 'remove made/later/ü'],
    )
    await watch.stop()
    await eventually(() => exits.length === 1)
    await assert.rejects(sandbox.files.watchDir('absent', () => {}), NotFoundError)
  }))

test('pause and connect', () =>
  withSandbox(async (sandbox) => {
    await sandbox.files.write('file', 'kept')
    const sleeper = await sandbox.commands.run('sleep 1000', { background: true })
    await sandbox.pause()
    assert.equal(await sandbox.isRunning(), false)
    const again = await Sandbox.connect(sandbox.sandboxId, options)
    assert.equal(await again.files.read('file'), 'kept')
    assert.ok((await again.commands.list()).some((process) => process.pid === sleeper.pid))
  }))
