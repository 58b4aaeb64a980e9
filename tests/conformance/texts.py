"""A client of docs/json.md, shaped as a socket that carries frames: each frame of a client leaves as a text, each text that comes is
handed on as the frame that means the same. So the cases, which know frames, check a gateway's JSON as well.
"""

import base64
import json
import struct

import wire
import ws
from wire import make

TEXT = 1
NAMES = {kind: name for name, kind in make.CLIENT_KINDS.items()}
HEADER_BYTES = wire.HEADER.size
DURABILITY = ["ephemeral", "memory", "durable"]
TYPES = {make.json_object(name, {})["type"]: name for name in make.GATEWAY_KINDS if name not in ("Published", "Ack")}
TYPES["published"] = "Published"


# Cases about how a FlatBuffer is laid out: as a text, what they send is another thing.
LAYOUT = ["frames/total-size", "malformed/bomb*"]


class Inexpressible(Exception):
    """What the case sends is no frame of a client, so no text means the same."""


class Socket(ws.Socket):
    """What cannot be said in JSON is an Inexpressible."""

    subprotocol = "ringgate.json.v1"
    opcode = TEXT

    def __init__(self, carrier, host, path):
        super().__init__(carrier, host, path)
        self._pieces = bytearray()

    def sendall(self, data):
        self._pieces += data
        while frame := self._whole_frame():
            self._output += ws.frame(TEXT, text_of(frame))
        output, self._output = bytes(self._output), bytearray()
        self._carrier.sendall(output)

    def send(self, data):
        self._push()
        if self._output:
            raise BlockingIOError
        self._pieces += data
        while frame := self._whole_frame():
            self._output += ws.frame(TEXT, text_of(frame))
        self._push()
        return len(data)

    def recv(self, bytes_max):
        if self._pieces:
            raise Inexpressible("a part of a frame, to which the gateway answers")
        return super().recv(bytes_max)

    def _whole_frame(self):
        if len(self._pieces) < HEADER_BYTES:
            return None
        length, kind, flags, reserved = wire.HEADER.unpack_from(self._pieces)
        if flags or reserved or kind not in NAMES or length > wire.FRAME_BYTES_MAX:
            raise Inexpressible("a header that no text has")
        if len(self._pieces) < HEADER_BYTES + length:
            return None
        frame = bytes(self._pieces[: HEADER_BYTES + length])
        del self._pieces[: HEADER_BYTES + length]
        return frame

    def content(self, payload):
        return frame_of(json.loads(payload.decode()))


def text_of(frame):
    """The text of a client's frame."""
    (_, kind, _, _), body, name = wire.HEADER.unpack_from(frame), frame[HEADER_BYTES:], None
    name = NAMES[kind]
    if name in make.EMPTY:
        if body:
            raise Inexpressible("a body where none belongs")
        return json.dumps({"type": make.json_object(name, {})["type"]}).encode()
    reader = wire._Reader(body)
    try:
        if name == "Ack":
            if len(body) != 16:
                raise Inexpressible("an Ack of another length")
            return json.dumps(make.json_object(name, reader.record("Position", 0))).encode()
        values = wire.Record()
        reader.table(name, reader.at("<I", 0), values)
        if name == "Connect" and "token" not in values.present:
            raise Inexpressible("a Connect without a token, which means that of the request for the WebSocket")
        values = {field: value for field, value in values.items() if field in values.present}
        return json.dumps(make.json_object(name, values), ensure_ascii=False).encode()
    except (wire.Unreadable, IndexError, struct.error, UnicodeError) as error:
        raise Inexpressible(str(error)) from error


def frame_of(push):
    """The frame of a gateway's text; None for a type that version 1 does not know. Everything about it is checked."""
    push = dict(push)
    kind = push.pop("type")
    name = TYPES.get(kind)
    if name is None:
        return b""
    if name in make.EMPTY:
        fields = []
    else:
        fields = make.PUBLISHED if name == "Published" else make.TABLES[name]
    values = values_of(fields, push)
    if name == "Published":
        values.setdefault("client_message_id", {"high": 0, "low": 0})
    return make.frame(make.GATEWAY_KINDS[name], make.body_of(name, values))


def values_of(fields, object):
    object, values = dict(object), {}
    for field, kind in fields:
        if kind == "bytes":
            text, data = object.pop("payload", None), object.pop("payload_base64", None)
            if (text is None) == (data is None):
                raise ValueError("not one of payload and payload_base64")
            values[field] = text.encode() if data is None else base64.b64decode(data, validate=True)
            if data is not None and is_text(values[field]):
                raise ValueError("payload_base64 of bytes that are UTF-8")
            continue
        value = object.pop(field, None)
        if value is None:
            if kind not in ("string", *make.STRUCTS):
                raise ValueError(f"{field} is missing")
            continue
        values[field] = value_of(field, kind, value)
    if object:
        raise ValueError(f"fields that docs/json.md does not know: {sorted(object)}")
    return values


def is_text(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def value_of(field, kind, value):
    if field == "durability":
        return DURABILITY.index(value)
    if isinstance(kind, list):
        return [values_of(make.TABLES[kind[0]], element) for element in value]
    if kind == "ClientMessageId":
        if [len(part) for part in value.split("-")] != [8, 4, 4, 4, 12]:
            raise ValueError(f"{value!r} is no UUID")
        number = int(value.replace("-", ""), 16)
        return {"high": number >> 64, "low": number & make.U64_MAX}
    if kind == "Stamp":
        return {
            "position": value_of(field, "Position", value["position"]),
            "message_id": digits(value["message_id"]),
            "timestamp_ms": digits(value["timestamp_ms"]),
        }
    if kind == "Position":
        if set(value) != {"epoch", "offset"}:
            raise ValueError(f"{value!r} is no position")
        return {part: digits(value[part]) for part in ("epoch", "offset")}
    if kind == "u64":
        return digits(value)
    wanted = {"bool": bool, "string": str}.get(kind, int)
    if type(value) is not wanted:
        raise ValueError(f"{field} is {value!r}, not a {wanted.__name__}")
    return value


def digits(value):
    if not (isinstance(value, str) and value.isdecimal() and value.isascii()):
        raise ValueError(f"{value!r} is no string of digits")
    return int(value)
