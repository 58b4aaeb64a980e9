"""The client's end of a WebSocket (RFC 6455), shaped as a socket: the bytes that it is given travel in binary messages.

Only what docs/protocol.md allows a gateway to send is taken: whole binary messages, Pong, and one Close frame.
"""

import base64
import hashlib
import os
import ssl
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PONG = 2, 8, 10
# A gateway takes messages of 1 MiB at least; frames may be cut at any place.
MESSAGE_BYTES = 256 << 10
HEAD_BYTES_MAX = 8192


class Socket:
    """On a connected socket, or one of TLS. Broken rules of WebSocket are a ValueError."""

    subprotocol = "ringgate.v1"
    opcode = BINARY

    def __init__(self, carrier, host, path):
        self._carrier, self._input, self._output = carrier, bytearray(), bytearray()
        self._is_closing = False
        # The code of the Close frame that came; 1005 where it had none.
        self.close_code = None
        key = base64.b64encode(os.urandom(16)).decode()
        carrier.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {self.subprotocol}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._input:
            data = carrier.recv(4096)
            if not data or len(self._input) > HEAD_BYTES_MAX:
                raise ValueError(f"no answer to the request: {bytes(self._input[:200])}")
            self._input += data
        head, _, rest = bytes(self._input).partition(b"\r\n\r\n")
        self._input = bytearray(rest)
        status, *lines = head.decode("ascii").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        if not status.startswith("HTTP/1.1 101 ") or headers.get("sec-websocket-accept") != accept:
            raise ValueError(f"the request was answered with {status!r}, {headers}")
        if headers.get("sec-websocket-protocol") != self.subprotocol:
            raise ValueError(f"another subprotocol was chosen: {headers}")

    def sendall(self, data):
        for start in range(0, len(data), MESSAGE_BYTES):
            self._output += frame(BINARY, bytes(data[start : start + MESSAGE_BYTES]))
        output, self._output = bytes(self._output), bytearray()
        self._carrier.sendall(output)

    def send(self, data):
        """Takes all or nothing: a frame that has begun to leave is kept until it has left."""
        self._push()
        if self._output:
            raise BlockingIOError
        self._output += frame(BINARY, bytes(data))
        self._push()
        return len(data)

    def _push(self):
        while self._output:
            try:
                sent = self._carrier.send(self._output)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            del self._output[:sent]

    def recv(self, _):
        """The content of what has come, once it is any; nothing at the end of the stream."""
        while True:
            content = self._take()
            if content:
                return content
            data = self._carrier.recv(1 << 18)
            if not data:
                return b""
            self._input += data

    def _take(self):
        content = bytearray()
        while len(self._input) >= 2:
            opcode, length, start = self._input[0], self._input[1], 2
            if length >= 128:
                raise ValueError("a frame of the gateway is masked")
            for short, pattern in ((126, ">H"), (127, ">Q")):
                if length == short:
                    start = 2 + struct.calcsize(pattern)
                    if len(self._input) < start:
                        return content
                    (length,) = struct.unpack_from(pattern, self._input, 2)
                    break
            if len(self._input) < start + length:
                return content
            payload = bytes(self._input[start : start + length])
            del self._input[: start + length]
            if self.close_code is not None:
                raise ValueError("a frame came behind the Close frame")
            if opcode == 0x80 | self.opcode:
                content += self.content(payload)
            elif opcode == 0x80 | CLOSE:
                self.close_code = struct.unpack_from(">H", payload)[0] if payload else 1005
                self._say_close(payload[:2])
            elif opcode != 0x80 | PONG:
                raise ValueError(f"a frame that begins with {opcode:#x}, which the gateway does not send")
        return content

    def content(self, payload):
        """The frames in a message."""
        return payload

    def _say_close(self, body):
        if not self._is_closing:
            self._is_closing = True
            try:
                self._carrier.sendall(frame(CLOSE, body))
            except OSError:
                # The gateway has closed the connection already.
                pass

    def shutdown(self, _):
        """Says that nothing more is sent, as shutdown(SHUT_WR) does for a bare socket."""
        self._say_close(struct.pack(">H", 1000))

    def settimeout(self, seconds):
        self._carrier.settimeout(seconds)

    def setsockopt(self, *option):
        self._carrier.setsockopt(*option)

    def fileno(self):
        return self._carrier.fileno()

    def close(self):
        self._carrier.close()


def frame(opcode, payload):
    """A whole frame of a client, masked."""
    length, mask = len(payload), os.urandom(4)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
    key = (mask * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + masked.to_bytes(length, "big")
