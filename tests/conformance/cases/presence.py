"""Presence."""

from harness import equal, namespace, section, that, until

case = section("presence")


def members(frame):
    return sorted((member.user, member.device) for member in frame.members)


@case(
    "members",
    "`request` u32; `room` string; `count` u32, the sessions in the room; `members`, up to `limit` of them in no"
    " particular order, each with `user` and `device`.",
)
def who(run):
    room = run.room()
    clients = [run.member(room, device=f"d{i}") for i in range(3)]
    frame = clients[0].ask_for("PresenceResult", "Presence", room=room, limit=10)
    equal("room and count", (frame.room, frame.count), (room, 3))
    equal("members", members(frame), sorted((client.user, client.device) for client in clients))


@case("two-devices", "A user with two devices in the room is there twice.")
def two_devices(run):
    room, user = run.room(), run.user()
    one = run.member(room, user, device="one")
    run.member(room, user, device="two")
    frame = one.ask_for("PresenceResult", "Presence", room=room, limit=10)
    equal("count and members", (frame.count, members(frame)), (2, [(user, "one"), (user, "two")]))


@case("count-alone", "0 asks for the count alone")
def count_alone(run):
    room = run.room()
    client = run.member(room)
    run.member(room)
    frame = client.ask_for("PresenceResult", "Presence", room=room, limit=0)
    equal("count and members", (frame.count, frame.members), (2, []))


@case("limit", "the most members to list.")
def limit(run):
    room = run.room()
    clients = [run.member(room) for _ in range(4)]
    for most in (1, 3):
        frame = clients[0].ask_for("PresenceResult", "Presence", room=room, limit=most)
        equal("count and members listed", (frame.count, len(set(members(frame)))), (4, most))
    equal("members", len(clients[0].ask_for("PresenceResult", "Presence", room=room, limit=0xFFFF_FFFF).members), 4)


@case("from-outside", "the client need not be in it if the namespace is open to it")
def from_outside(run):
    room = run.room()
    member = run.member(room)
    frame = run.sign_in().ask_for("PresenceResult", "Presence", room=room, limit=10)
    equal("members", members(frame), [(member.user, "default")])


@case("empty-room", "`count` u32, the sessions in the room")
def empty_room(run):
    frame = run.sign_in().ask_for("PresenceResult", "Presence", room=run.room(), limit=10)
    equal("count and members", (frame.count, frame.members), (0, []))


@case(
    "not-offered",
    "| 108 | not available | no | the namespace does not offer this (presence, history) | do not repeat |",
    namespace("nopresence"),
)
def not_offered(run):
    room = run.room("nopresence")
    that(not run.member(room).refused(108, "Presence", room=room, limit=1).temporary, "the Error is temporary")


@case("grant", "Answer: `PresenceResult`, or `Error` 102, 103, 107, 108, 111, 403, 410.", namespace("members"))
def grant(run):
    room = run.room("members")
    run.sign_in().refused(103, "Presence", room=room, limit=1)
    run.sign_in(claims={"rooms": {"presence": [room]}}).ask_for("PresenceResult", "Presence", room=room, limit=1)


@case("who-has-left", "`Presence` gives the truth")
def who_has_left(run):
    room = run.room()
    client, other = run.member(room), run.member(room)
    other.close()
    until(
        "the one who hung up is gone",
        lambda: client.ask_for("PresenceResult", "Presence", room=room, limit=0).count == 1,
    )


@case("after-a-takeover", "`count` u32, the sessions in the room")
def after_a_takeover(run):
    room = run.room()
    watcher, older = run.member(room), run.member(room)
    newer = run.sign_in(older.user, rooms=[{"room": room}])
    newer.take("Subscribed", room=room)
    older.goodbye(4500)
    until(
        "two sessions in the room", lambda: watcher.ask_for("PresenceResult", "Presence", room=room, limit=0).count == 2
    )
