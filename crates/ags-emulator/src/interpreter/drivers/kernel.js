'use strict';
// Runs JavaScript cells for the interpreter server, and TypeScript ones once their types are removed.
//
// File descriptor 0 is a socket: requests come in and replies go out as lines of JSON. What the code prints goes to the
// descriptors 1 and 2 as it is. Node's own REPL evaluates the cells: it knows top-level await and keeps declarations.

const fs = require('fs');
const net = require('net');
const repl = require('repl');
const util = require('util');
const { createRequire } = require('module');
const { PassThrough } = require('stream');

const REPRESENTATIONS = {
  _toHtml: 'text/html',
  _toMd: 'text/markdown',
  _toSvg: 'image/svg+xml',
  _toPng: 'image/png',
  _toJpeg: 'image/jpeg',
  _toPdf: 'application/pdf',
  _toLatex: 'text/latex',
  _toJson: 'application/json',
  _toJavascript: 'application/javascript',
};

const typescript = process.argv[2] === 'typescript';
/** What fails the cell that runs. */
let failCell;

function reply(message) {
  const wellFormed = (_, value) => (typeof value === 'string' ? value.toWellFormed?.() ?? value : value);
  const line = Buffer.from(JSON.stringify(message, wellFormed) + '\n');
  for (let sent = 0; sent < line.length;) {
    try {
      sent += fs.writeSync(0, line, sent);
    } catch (error) {
      // The socket does not block; its reader is on the way.
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** What removes types; undefined where nothing can. */
function stripper() {
  const strip = require('module').stripTypeScriptTypes;
  if (strip) return (code) => strip(code, { mode: 'transform' });
  for (const place of [process.cwd(), '/usr/local/lib', '/usr/lib']) {
    try {
      const ts = createRequire(`${place}/index.js`)('typescript');
      const options = { target: 'ESNext', module: 'ESNext' };
      return (code) => ts.transpileModule(code, { compilerOptions: options }).outputText;
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  return undefined;
}

/** A value by MIME type. */
function representations(value) {
  const data = { 'text/plain': typeof value === 'string' ? `'${value}'` : util.inspect(value) };
  if (value === null || typeof value !== 'object') return data;
  for (const [method, mime] of Object.entries(REPRESENTATIONS)) {
    if (typeof value[method] === 'function') data[mime] = encoded(value[method]());
  }
  if (typeof value._toMime === 'function') {
    for (const [mime, shown] of Object.entries(value._toMime())) data[mime] = encoded(shown);
  }
  return data;
}

function encoded(shown) {
  return shown instanceof Uint8Array ? Buffer.from(shown).toString('base64') : shown;
}

function show(value, main) {
  let data;
  try {
    data = representations(value);
  } catch (error) {
    data = { 'text/plain': String(error) };
  }
  reply({ type: 'result', main, data });
}

function fail(error) {
  const known = error !== null && typeof error === 'object' && 'message' in error;
  const name = known ? String(error.name) : typeof error;
  const value = known ? String(error.message) : util.inspect(error);
  const own = (line) => [__filename, 'node:', 'at new Promise (<anonymous>)'].some((part) => line.includes(part));
  const stack = known && error.stack ? String(error.stack).split('\n').filter((line) => !own(line)).join('\n') : value;
  reply({ type: 'error', name, value, traceback: stack });
}

function setEnvironment(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) delete process.env[name];
    else process.env[name] = value;
  }
}

const server = repl.start({
  prompt: '', input: new PassThrough(), output: new PassThrough().resume(), terminal: false, breakEvalOnSigint: true,
});
server.context.console = console;
server.context.display = (...values) => values.forEach((value) => show(value, false));
const strip = typescript ? stripper() : (code) => code;

/** Ends what awaits; what computes is ended by the virtual machine. */
function interrupt() {
  if (failCell) server.emit('SIGINT');
}

function evaluate(code) {
  return new Promise((resolve, reject) => {
    failCell = (error) => reject(error instanceof repl.Recoverable ? error.err : error);
    // While it computes, the virtual machine's own handler is in place, which a listener's removal would undo.
    process.off('SIGINT', interrupt);
    try {
      server.eval(code + '\n', server.context, '<cell>', (error, value) => error ? failCell(error) : resolve(value));
    } finally {
      process.on('SIGINT', interrupt);
    }
  });
}

async function run({ code, env, restore }) {
  setEnvironment(env);
  try {
    const value = await evaluate(strip(code));
    if (value !== undefined) show(value, true);
  } catch (error) {
    fail(error);
  }
  failCell = undefined;
  setEnvironment(restore);
  reply({ type: 'done' });
}

process.on('SIGINT', interrupt);
process.on('unhandledRejection', (error) => console.error(error));
// The REPL tells its domain what a cell throws, and what fails outside of one, which the kernel outlives.
server._domain.removeAllListeners('error');
server._domain.on('error', (error) => (failCell ?? console.error)(error));

const requests = new net.Socket({ fd: 0 });
let pending = '';
let turn = Promise.resolve();
requests.setEncoding('utf8');
requests.on('data', (text) => {
  const lines = (pending + text).split('\n');
  pending = lines.pop();
  for (const line of lines) turn = turn.then(() => run(JSON.parse(line)));
});
requests.on('end', () => process.exit());

if (strip) reply({ type: 'ready' });
else reply({ type: 'failed', reason: 'TypeScript needs Node.js 22.13 or later, or the package typescript' });
