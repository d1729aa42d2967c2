// The JavaScript code interpreter SDK, unmodified: runs, results, errors, contexts. It comes with the newest generation only.

import assert from 'node:assert/strict'
import { test } from 'node:test'

const interpreter = await import('@e2b/code-interpreter').catch(() => undefined)
const { E2B_API_URL: apiUrl, E2B_SANDBOX_URL: sandboxUrl, E2B_API_KEY: apiKey } = process.env
const options = { apiKey, apiUrl, sandboxUrl, timeoutMs: 120_000, envs: { FROM_CREATE: 'wide' } }

test('code, with @e2b/code-interpreter', { skip: !interpreter }, async () => {
  const sandbox = await interpreter.Sandbox.create(options)
  try {
    const first = await sandbox.runCode("x = 20\nprint('out')\nx + 1")
    assert.deepEqual([first.text, first.logs.stdout, first.error], ['21', ['out\n'], undefined])
    assert.equal((await sandbox.runCode('x * 2')).text, '40')
    assert.equal((await sandbox.runCode('1 / 0')).error.name, 'ZeroDivisionError')
    assert.equal((await sandbox.runCode("import os; os.environ['FROM_CREATE']")).text, 'wide')
    const context = await sandbox.createCodeContext({ language: 'python', cwd: '/tmp' })
    assert.equal((await sandbox.runCode('x', { context })).error.name, 'NameError')
    await sandbox.removeCodeContext(context)
    const script = await sandbox.runCode('const z = 3; z + 1', { language: 'javascript' })
    assert.equal(script.text, '4')
  } finally {
    await sandbox.kill()
  }
})
