"""Ack: cumulative, without an answer, and what does not move the cursor."""

from harness import configured, equal, leave, offsets, payloads, position, section, that
from wire import encode

case = section("ack")


def mailbox(run, count, **values):
    """A reader who has been sent `count` messages and acknowledged none, and who wrote them."""
    reader, writer = run.sign_in(**values), run.sign_in()
    for i in range(count):
        run.publish(writer, "@" + reader.user, b"%d" % (i + 1))
    return reader, writer, reader.messages("@" + reader.user, count)


def returned(run, reader, **values):
    """What the device is brought when it comes back without a position, and what Connected said."""
    leave(reader)
    again = run.sign_in(reader.user, **values)
    return again, run.marked(again, run.sign_in(), "@" + reader.user)


def ack(client, message, add=0):
    place = message.stamp.position
    client.send("Ack", epoch=place.epoch, offset=place.offset + add)
    client.alive()


@case("cumulative", "It is cumulative and has no answer.")
def cumulative(run):
    reader, _, got = mailbox(run, 5)
    ack(reader, got[2])
    reader.quiet(0.1)
    again, left = returned(run, reader)
    equal("what comes again", payloads(left), [b"4", b"5"])
    that(again.hello.inbox_recovered, "inbox_recovered is false")


@case("kept", '"This device has kept everything in its inbox up to and including this position."')
def kept(run):
    reader, _, got = mailbox(run, 3)
    ack(reader, got[2])
    equal("what comes again", returned(run, reader)[1], [])


@case("of-another-epoch", "An `Ack` of another epoch, or of an offset at or before an earlier `Ack`, is ignored.")
def of_another_epoch(run):
    reader, _, got = mailbox(run, 3)
    for epoch in (got[0].stamp.position.epoch + 1, 0, 2**64 - 1):
        reader.send("Ack", epoch=epoch, offset=3)
    reader.alive()
    equal("what comes again", offsets(returned(run, reader)[1]), [1, 2, 3])


@case("backward", "An `Ack` of another epoch, or of an offset at or before an earlier `Ack`, is ignored.")
def backward(run):
    reader, _, got = mailbox(run, 4)
    ack(reader, got[2])
    ack(reader, got[0])
    ack(reader, got[2])
    reader.send("Ack", epoch=got[0].stamp.position.epoch, offset=0)
    equal("what comes again", offsets(returned(run, reader)[1]), [4])


@case("ahead", "One that is ahead of what was sent on this connection counts as an `Ack` of what was sent")
def ahead(run):
    reader, writer, got = mailbox(run, 2)
    ack(reader, got[1], add=1000)
    reader.alive()
    run.publish(writer, "@" + reader.user, b"later")
    equal("what comes next", offsets(reader.messages("@" + reader.user, 1)), [3])
    equal("what comes again", offsets(returned(run, reader)[1]), [3])


@case("ahead-within-a-window", "acknowledge again when the repetition has reached it")
def ahead_within_a_window(run):
    reader, writer = run.sign_in(receive_window=2), run.sign_in()
    topic = "@" + reader.user
    for i in range(4):
        run.publish(writer, topic, b"%d" % (i + 1))
    first = reader.messages(topic, 2)
    # Counts as an Ack of 2: 3 and 4 were not sent yet, so they still come.
    ack(reader, first[1], add=2)
    equal("what comes next", offsets(reader.messages(topic, 2)), [3, 4])


@case("rooms-are-not-acknowledged", "Rooms are not acknowledged.")
def rooms_are_not_acknowledged(run):
    room = run.room()
    client = run.member(room)
    place = run.publish(client, room).stamp.position
    client.messages(room, 1)
    client.send("Ack", epoch=place.epoch, offset=place.offset)
    client.alive()
    run.publish(client, room, b"still here")
    equal("payloads", payloads(client.messages(room, 1)), [b"still here"])


@case(
    "of-one-device",
    "Each user has one inbox, a log, and each device of the user a cursor in it: the offset that it has acknowledged.",
)
def of_one_device(run):
    user, writer = run.user(), run.sign_in()
    one, two = run.sign_in(user, device="one"), run.sign_in(user, device="two")
    run.publish(writer, "@" + user, b"x")
    ack(one, one.messages("@" + user, 1)[0])
    two.messages("@" + user, 1)
    leave(one)
    leave(two)
    equal("for the device that acknowledged", run.marked(run.sign_in(user, device="one"), writer, "@" + user), [])
    equal("for the other", payloads(run.marked(run.sign_in(user, device="two"), run.sign_in(), "@" + user))[:1], [b"x"])


@case("ephemeral", "Do not acknowledge messages of offset 0, and do not compare them.")
def ephemeral(run):
    # A client that does it all the same must not lose anything.
    reader, writer, got = mailbox(run, 2)
    run.publish(writer, "@" + reader.user, b"hint", ephemeral=True)
    hint = reader.take("Message")
    reader.send_bytes(encode("Ack", epoch=hint.stamp.position.epoch, offset=0))
    reader.alive()
    equal("what comes again", offsets(returned(run, reader)[1]), [1, 2])


@case(
    "repeated",
    "If an `Ack` is missing for 30 s, it sends everything after the cursor again; then after 60 s, and so on, doubling"
    " up to 5 min.",
    configured("inbox.ack_wait"),
    long=True,
)
def repeated(run):
    reader, _, got = mailbox(run, 3)
    ack(reader, got[0])
    for _ in range(2):
        again = [reader.take("Message", seconds=15) for _ in range(2)]
        equal("what is repeated", [(m.stamp, m.payload) for m in again], [(m.stamp, m.payload) for m in got[1:]])


@case("repetition-ends", "An `Ack` that moves the cursor ends that.", configured("inbox.ack_wait"), long=True)
def repetition_ends(run):
    reader, _, got = mailbox(run, 2)
    reader.take("Message", seconds=15)
    reader.take("Message", seconds=15)
    ack(reader, got[1])
    reader.aside.clear()
    reader.quiet(7)


@case(
    "beyond-everything",
    "A position in the right epoch beyond the newest one is one that the gateway never gave: false.",
)
def beyond_everything(run):
    reader, _, got = mailbox(run, 2)
    leave(reader)
    hello = run.sign_in(reader.user, inbox=position(got[0].stamp.position.epoch, 99)).hello
    equal("inbox_recovered", hello.inbox_recovered, False)
