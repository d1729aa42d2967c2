"""A server for tests that shows on the wire what usual ones hide: HTTP/1.1 by hand over asyncio."""

import asyncio
import base64
import hashlib
import json
import struct
import sys
from urllib.parse import parse_qs, urlsplit

CHUNK = 64 * 1024
released = asyncio.Event()
seen = {"dropped": 0, "open": 0}


def pattern(length):
    """Bytes that differ from chunk to chunk."""
    sent = 0
    while sent < length:
        part = min(CHUNK, length - sent)
        yield (hashlib.sha256(str(sent).encode()).digest() * (CHUNK // 32))[:part]
        sent += part


class Request:
    def __init__(self, line, headers):
        self.method, self.target, _ = line.split(" ", 2)
        self.headers = headers
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}
        self.path = self.target.split("?")[0]
        self.trailers = []

    def header(self, name, default=""):
        return next((value for key, value in self.headers if key.lower() == name), default)


async def head(reader):
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = text.split("\r\n")
    return Request(line, [tuple(field.split(": ", 1)) for field in rest if field])


async def body(request, reader):
    """The body's pieces; notes the trailers."""
    if "chunked" in request.header("transfer-encoding"):
        while size := int((await reader.readline()).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while line := (await reader.readline()).strip():
            request.trailers.append(line.decode().split(": ", 1))
        return
    left = int(request.header("content-length", "0"))
    while left:
        piece = await reader.read(min(left, CHUNK))
        if not piece:
            raise ConnectionError("the body broke off")
        left -= len(piece)
        yield piece


def respond(writer, status, headers, content=b""):
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode("latin-1") + content)


def answer(writer, status, content, kind="application/json", headers=()):
    respond(writer, status, [("Content-Type", kind), ("Content-Length", len(content)), *headers], content)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def mirror(request, reader, writer):
    """Says what arrived."""
    digest, length = hashlib.sha256(), 0
    async for piece in body(request, reader):
        digest.update(piece)
        length += len(piece)
    shown = {
        "method": request.method, "target": request.target, "headers": request.headers,
        "length": length, "sha256": digest.hexdigest(), "trailers": request.trailers,
    }
    answer(writer, "200 OK", b"" if request.method == "HEAD" else json.dumps(shown).encode())


async def echo(request, reader, writer):
    """Sends the body back as it comes."""
    respond(writer, "200 OK", [("Transfer-Encoding", "chunked")])
    async for piece in body(request, reader):
        writer.write(chunk(piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def download(request, _reader, writer):
    length = int(request.query["n"])
    if "chunked" in request.query:
        respond(writer, "200 OK", [("Transfer-Encoding", "chunked")])
        for piece in pattern(length):
            writer.write(chunk(piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return
    respond(writer, "200 OK", [("Content-Length", length)])
    for piece in pattern(length):
        writer.write(piece)
        await writer.drain()


async def trailers(_request, _reader, writer):
    respond(writer, "200 OK", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum, X-More")])
    writer.write(chunk(b"content") + b"0\r\nX-Sum: 42\r\nX-More: yes\r\n\r\n")


async def events(_request, _reader, writer):
    """An event at once; the other when it is released."""
    respond(writer, "200 OK", [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
    writer.write(chunk(b"data: one\n\n"))
    await writer.drain()
    await released.wait()
    released.clear()
    writer.write(chunk(b"data: two\n\n") + b"0\r\n\r\n")


async def release(_request, _reader, writer):
    released.set()
    answer(writer, "200 OK", b"{}")


async def ticks(_request, reader, writer):
    """Goes on until it is cut."""
    respond(writer, "200 OK", [("Transfer-Encoding", "chunked")])
    seen["open"] += 1
    writer.write(chunk(b"tick\n"))
    await writer.drain()
    try:
        await reader.read(1)
    except ConnectionError:
        pass
    seen["dropped"] += 1
    seen["open"] -= 1
    return True


async def flood(_request, _reader, writer):
    """Sends without end, as fast as it is taken."""
    respond(writer, "200 OK", [("Transfer-Encoding", "chunked")])
    seen["open"] += 1
    try:
        while True:
            writer.write(chunk(bytes(CHUNK)))
            await writer.drain()
    finally:
        seen["dropped"] += 1
        seen["open"] -= 1


async def held(_request, _reader, writer):
    """Begins its answer when it is released."""
    seen["open"] += 1
    await released.wait()
    released.clear()
    seen["open"] -= 1
    answer(writer, "200 OK", b"at last", "text/plain")


async def half(_request, reader, writer):
    """Ends its sending side with its answer, and reads on."""
    respond(writer, "200 OK", [("Connection", "close")], b"all that there is")
    writer.write_eof()
    while await reader.read(CHUNK):
        pass
    return True


async def statistics(_request, _reader, writer):
    answer(writer, "200 OK", json.dumps(seen).encode())


async def welcome(request, reader, writer):
    """Asks for the body as the client wishes to be asked."""
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await mirror(request, reader, writer)


async def refuse(_request, _reader, writer):
    answer(writer, "413 Payload Too Large", b'{"why": "too large for this server"}', headers=[("Connection", "close")])
    return True


async def broken(request, _reader, writer):
    """Breaks off in the middle of an answer, when it is released: at once it might come before the answer's head does."""
    framing = ("Transfer-Encoding", "chunked") if "chunked" in request.query else ("Content-Length", 1000)
    respond(writer, "200 OK", [framing])
    writer.write(chunk(b"half") if "chunked" in request.query else b"half")
    await writer.drain()
    await released.wait()
    released.clear()
    return True


async def hung_up(_request, _reader, _writer):
    return True


async def oddities(_request, _reader, writer):
    """Headers that a proxy must not pass on, and some that it must."""
    fields = [
        ("Connection", "X-Hop, close"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("Proxy-Authenticate", "Basic"),
        ("X-Access-Token", "leaked"), ("E2b-Traffic-Access-Token", "leaked"), ("Alt-Svc", 'h3=":443"'),
        ("Set-Cookie", "a=1; Domain=localhost; Path=/; HttpOnly"), ("Set-Cookie", "b=2; Secure"),
        ("Set-Cookie", "__Host-ags-preview=planted; Path=/; Secure"), ("Set-Cookie", "ags-preview=planted; Path=/"),
        ("Content-Security-Policy", "default-src *"), ("Access-Control-Allow-Origin", "*"), ("Clear-Site-Data", '"*"'),
        ("Content-Disposition", "inline"), ("X-Kept", "yes"), ("X-Twice", "1"), ("X-Twice", "2"),
    ]
    answer(writer, "200 OK", b"<script>alert(1)</script>", "text/html", fields)
    return True


async def redirect(request, _reader, writer):
    to = request.query["to"].replace("HOST", request.header("host"))
    respond(writer, "302 Found", [("Location", to), ("Content-Length", 0)])


async def status(request, _reader, writer):
    answer(writer, f"{request.query['code']} Said", request.query.get("body", "").encode(), request.query.get("kind", "text/plain"))


async def fields(request, _reader, writer):
    """The fields that it is told, as JSON."""
    answer(writer, "200 OK", b"content", headers=json.loads(request.query["of"]))


async def endless(_request, _reader, writer):
    """A body that ends with its connection."""
    respond(writer, "200 OK", [("Content-Type", "text/plain")], b"to the end")
    return True


async def raw(request, reader, writer):
    """Another protocol: echoes, and says how much there was when the other side has ended its half."""
    respond(writer, "101 Switching Protocols", [("Connection", "Upgrade"), ("Upgrade", request.header("upgrade"))])
    count = 0
    while data := await reader.read(CHUNK):
        count += len(data)
        writer.write(data)
        await writer.drain()
    writer.write(b"end:%d" % count)
    return True


async def websocket(request, reader, writer):
    key = request.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)]
    if protocols := request.header("sec-websocket-protocol"):
        fields.append(("Sec-WebSocket-Protocol", protocols.split(",")[0].strip()))
    respond(writer, "101 Switching Protocols", fields)
    while True:
        first, second = await reader.readexactly(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
        mask = await reader.readexactly(4)
        masked = await reader.readexactly(length)
        data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
        if data == b"origin":
            data = request.header("origin").encode()
        elif data.startswith(b"close "):
            first, data = 0x88, struct.pack(">H", int(data[6:])) + b"as you wish"
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        writer.write(bytes([first]) + size + data)
        await writer.drain()
        if first & 15 == 8:
            return True


PAGE = b"""<!doctype html><title>echo</title><h1>Sandbox</h1><p id=state>connecting</p><script>
const socket = new WebSocket(`ws://${location.host}/ws`), state = document.querySelector('#state');
socket.onopen = () => socket.send('hello from the page');
socket.onmessage = message => { state.textContent = 'echoed: ' + message.data; };
socket.onerror = () => { state.textContent = 'failed'; };
</script>"""


async def page(_request, _reader, writer):
    answer(writer, "200 OK", PAGE, "text/html; charset=utf-8")


ROUTES = {
    "/echo": echo, "/download": download, "/trailers": trailers, "/events": events, "/release": release, "/ticks": ticks,
    "/statistics": statistics, "/welcome": welcome, "/refuse": refuse, "/broken": broken, "/hung-up": hung_up,
    "/oddities": oddities, "/redirect": redirect, "/status": status, "/raw": raw, "/ws": websocket, "/page": page,
    "/flood": flood, "/held": held, "/half": half, "/fields": fields, "/endless": endless,
}


async def serve(reader, writer):
    try:
        ended = False
        while not ended:
            request = await head(reader)
            ended = await ROUTES.get(request.path, mirror)(request, reader, writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]), limit=1 << 20)
    await server.serve_forever()


asyncio.run(main())
