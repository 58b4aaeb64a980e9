"""The page's section on transport."""

import socket
import ssl
import time

from harness import leave, section, that, tls_only
from wire import Connection, encode

case = section("transport")


@case("one-connection", "One TCP connection, plain (default port 7400) or under TLS (default port 7443).")
def one_connection(run):
    client = run.sign_in()
    client.alive()
    leave(client)


@case("tls-1-2", "TLS is 1.2 or 1.3.", tls_only)
def tls_1_2(run):
    versions(run, "TLSv1.2")


@case("tls-1-3", "With 1.3 either side may update its keys at any time (`KeyUpdate`).", tls_only)
def tls_1_3(run):
    versions(run, "TLSv1.3")


def versions(run, wanted):
    version = ssl.TLSVersion[wanted.replace(".", "_")]
    limited = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    limited.check_hostname, limited.verify_mode = False, ssl.CERT_NONE
    limited.minimum_version = limited.maximum_version = version
    client = Connection(run.gateway.address, limited, run.gateway.server_name, run.gateway.deadline)
    run.connections.append(client)
    that(client.socket.version() == wanted, f"{client.socket.version()} is spoken instead of {wanted}")
    client.send_bytes(run.connect_frame())
    client.take("Connected")
    client.alive()


@case("no-alpn", "No ALPN is required and none is offered.", tls_only)
def no_alpn(run):
    client = run.sign_in()
    that(client.socket.selected_alpn_protocol() is None, "a protocol was chosen by ALPN")


@case("close-notify", "`close_notify` is answered with `close_notify`.", tls_only)
def close_notify(run):
    client = run.sign_in()
    client.socket.settimeout(client.deadline)
    try:
        client.socket.unwrap().close()
    except OSError as error:
        that(False, f"no close_notify came: {error}")


@case("certificate", "The client verifies the certificate against the host name (SNI is sent as usual).", tls_only)
def certificate(run):
    context = run.gateway.context
    that(context.check_hostname, "this check does not verify the name")
    run.sign_in()


@case(
    "handshake-deadline", "The TLS handshake must be over 5 s after the connection was accepted.", tls_only, long=True
)
def handshake_deadline(run):
    began = time.monotonic()
    with socket.create_connection(run.gateway.address, timeout=15) as quiet:
        # The beginning of a record; the rest never comes.
        quiet.sendall(b"\x16\x03\x01")
        try:
            data = quiet.recv(64)
            while data:
                data = quiet.recv(64)
        except ConnectionResetError:
            pass
        except TimeoutError:
            that(False, "the connection was open 15 s after it was accepted, without a handshake")
    that(time.monotonic() - began > 1, "the connection ended at once")


@case(
    "failed-handshake",
    "A failed handshake ends without any frame of this protocol; nothing of it can be read before the "
    "handshake is over.",
    tls_only,
)
def failed_handshake(run):
    with socket.create_connection(run.gateway.address, timeout=run.gateway.deadline) as plain:
        plain.sendall(run.connect_frame())
        got = b""
        try:
            while data := plain.recv(4096):
                got += data
        except ConnectionResetError:
            pass
    # An alert of TLS may come: its records begin with 21.
    that(not got or got[0] == 21, f"{got[:16].hex(' ')} came before the handshake")


@case("no-upgrade", "There is no upgrade from plain to TLS on one port.")
def no_upgrade(run):
    if run.gateway.context is not None:
        return failed_handshake(run)
    client = run.connect()
    # A ClientHello on the plain port is a header of 0x010316 bytes and more.
    client.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32)
    frame = client.take("Goodbye")
    that(frame.code in (3501, 3510), f"{frame}")
    client.end()


@case("many-writes", "Both directions are a stream of frames.")
def many_writes(run):
    user = run.user()
    client = run.connect()
    data = (
        run.connect_frame(user)
        + encode("Ping")
        + encode("Publish", request=7, topic="@" + user, payload=b"one")
        + encode("Ping")
    )
    for part in range(0, len(data), 7):
        client.send_bytes(data[part : part + 7])
    client.take("Connected")
    client.take("Published", request=7)
    client.take("Pong")
    client.take("Pong")
