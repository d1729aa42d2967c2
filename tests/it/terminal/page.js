// A terminal in a page, as a web frontend has one: it starts a login shell, or looks on at a command that runs, and comes
// back after a drop (from its cursor) or a reload (from the beginning). The address says which:
// gateway, instance, and maybe exec, role, protocol (text instead of bin).
const query = new URLSearchParams(location.search);
const protocol = query.get("protocol") === "text" ? "ags.exec.v1" : "ags.exec.v1.bin";
const role = query.get("role") ?? "writer";

const terminal = new Terminal({ cols: 80, rows: 24, scrollback: 10000, allowProposedApi: true });
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("terminal"));

const state = { exec: null, cursor: null, exit: null, gaps: [], closes: [], errors: [], answers: [] };
const desk = { terminal, state, ready: false };
let socket;
// While what was printed earlier is drawn anew, the terminal must not answer what programs asked it then; nor may every page
// that shows a terminal answer what is asked once: the page that started it does.
let replaying = false;
const muted = () => replaying || query.has("exec");
for (const id of [{ final: "c" }, { prefix: ">", final: "c" }, { final: "n" }, { prefix: "?", final: "n" },
  { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" }]) {
  terminal.parser.registerCsiHandler(id, muted);
}
terminal.parser.registerDcsHandler({ intermediates: "$", final: "q" }, muted);
for (const color of [4, 10, 11, 12]) terminal.parser.registerOscHandler(color, (data) => data.endsWith("?") && muted());

addEventListener("error", (event) => state.errors.push(event.message));
addEventListener("unhandledrejection", (event) => state.errors.push(String(event.reason)));

const lines = (from, to) => {
  const buffer = terminal.buffer.active;
  return Array.from({ length: to - from }, (_, index) => buffer.getLine(from + index).translateToString(true).trimEnd());
};
desk.screen = () => lines(terminal.buffer.active.viewportY, terminal.buffer.active.viewportY + terminal.rows);
desk.everything = () => lines(0, terminal.buffer.active.length);
desk.drop = () => { desk.ready = false; socket.close(4999); };

const saved = () => JSON.parse(sessionStorage.getItem("session"));

async function ticket(exec) {
  const response = await fetch("ticket" + (exec ? `?exec=${exec}` : ""), { method: "POST" });
  return `ticket.${(await response.json()).ticket}`;
}

async function connect() {
  const exec = saved()?.exec ?? query.get("exec");
  const credential = saved() ? `resume.${saved().token}` : await ticket(exec);
  const after = state.cursor ? `&after=${state.cursor}` : "";
  const path = exec ? `execs/${exec}/ws?role=${role}${after}` : "exec/ws";
  const origin = query.get("gateway").replace("http", "ws");
  socket = new WebSocket(`${origin}/v1/instances/${query.get("instance")}/${path}`, [protocol, credential]);
  socket.binaryType = "arraybuffer";
  replaying = Boolean(exec);
  socket.onopen = () => {
    if (!exec) send({ type: "start", pty: { cols: terminal.cols, rows: terminal.rows }, env: { LANG: "C.UTF-8" } });
  };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : draw(new Uint8Array(data)));
  socket.onclose = ({ code, reason }) => {
    state.closes.push(`${code} ${reason}`);
    if (code !== 1000) setTimeout(connect, 10);
  };
}

// One byte for the stream, one for the length of the cursor, the cursor, the output.
function draw(frame) {
  const output = 2 + frame[1];
  state.cursor = String.fromCharCode(...frame.subarray(2, output));
  terminal.write(frame.subarray(output));
}

function hear(event) {
  if (event.cursor) state.cursor = event.cursor;
  switch (event.type) {
    case "started":
      state.exec = event.exec_id;
      // A new tab of the same site has a session of its own; a reload has not.
      sessionStorage.setItem("session", JSON.stringify({ exec: event.exec_id, token: event.resume_token ?? saved()?.token }));
      desk.ready ||= !replaying;
      break;
    case "pty":
      terminal.write(event.encoding ? Uint8Array.from(atob(event.data), (byte) => byte.charCodeAt(0)) : event.data);
      break;
    case "keepalive":
      // The first one: all that was there has been told. What is being drawn comes first.
      terminal.write("", () => { replaying = false; desk.ready = true; });
      break;
    case "gap": state.gaps.push(event); break;
    case "exit": state.exit = event; terminal.write("", () => { desk.ready = true; }); break;
    case "error": state.answers.push(event.code); break;
  }
}

const send = (frame) => socket.send(JSON.stringify(frame));
terminal.onData((data) => send({ type: "stdin", data }));
terminal.onBinary((data) => send({ type: "stdin", data: btoa(data), encoding: "base64" }));
terminal.onResize(({ cols, rows }) => send({ type: "resize", cols, rows }));
addEventListener("resize", () => fit.fit());

connect();
