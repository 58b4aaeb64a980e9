#!/usr/bin/env python3
"""A chat in the terminal: joins a room, prints what comes, sends what is typed.

    example_chat.py --url tcp://127.0.0.1:7400 --token TOKEN --room chat:general

A line "@bob hello" goes to Bob's inbox; "/who" lists who is in the room, "/history" what was said last, and again what was
said before that; "/typing" tells the room that a line is being typed.
"""

import argparse
import asyncio
import sys

import ringgate


TYPING = b"\0typing"


def show(message):
    if message.ephemeral and message.payload == TYPING:
        print(f"* {message.sender} is typing")
        return
    where = ""
    if message.is_copy:
        where = f" (to {message.sent_to}, from another device)"
    elif message.topic.startswith("@"):
        where = " (to you)"
    print(f"{message.sender}{where}: {message.payload.decode(errors='replace')}")


def tell(event):
    if isinstance(event, ringgate.Connected):
        print(f"* connected to {event.node} as {event.user}")
    elif isinstance(event, ringgate.Subscribed):
        print(f"* back in {event.room}" + ("" if event.recovered else "; messages were missed"))
    elif isinstance(event, ringgate.Unsubscribed):
        print(f"* no longer in {event.room} ({event.code})")
    elif isinstance(event, ringgate.TokenFailed):
        print(f"* no new token: {event.error}")
    elif isinstance(event, ringgate.Joined):
        print(f"* {event.user} came")
    elif isinstance(event, ringgate.Left):
        print(f"* {event.user} left")


class Pages:
    """Reads a room's messages page by page, the newest page first."""

    def __init__(self, client, room):
        self.client = client
        self.room = room
        self.before = None
        self.more = True

    async def show_next(self):
        if not self.more:
            print("* nothing is older")
            return
        page = await self.client.history(self.room, limit=20, before=self.before)
        for message in page.messages:
            show(message)
        self.more = page.more
        if page.messages:
            self.before = page.messages[0].stamp.position


async def send(client, room, pages, line):
    if line == "/who":
        presence = await client.presence(room)
        print(f"* {presence.count}: " + ", ".join(sorted(member.user for member in presence.members)))
    elif line == "/history":
        await pages.show_next()
    elif line == "/typing":
        client.publish_nowait(room, TYPING, ephemeral=True)
    elif line.startswith("@"):
        user, _, text = line.partition(" ")
        await client.publish(user, text.encode())
    elif line:
        await client.publish(room, line.encode())


async def type_and_send(client, room):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    pages = Pages(client, room)
    while line := await lines.readline():
        try:
            await send(client, room, pages, line.decode().rstrip("\n"))
        except (ringgate.RinggateError, ringgate.FrameError) as error:
            print(f"! {error}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:7400")
    parser.add_argument("--token", required=True)
    parser.add_argument("--room", default="chat:general")
    parser.add_argument("--device", default="terminal")
    arguments = parser.parse_args()
    client = ringgate.Client(
        arguments.url, arguments.token, device=arguments.device, on_message=show, on_event=tell,
        client_name="ringgate-example/0.1",
    )
    async with client:
        await client.subscribe(arguments.room)
        typing = asyncio.ensure_future(type_and_send(client, arguments.room))
        closed = asyncio.ensure_future(client.wait_closed())
        done, _ = await asyncio.wait((typing, closed), return_when=asyncio.FIRST_COMPLETED)
        typing.cancel()
        for task in done:
            task.result()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (ringgate.Closed, OSError) as end:
        sys.exit(f"* {end}")
