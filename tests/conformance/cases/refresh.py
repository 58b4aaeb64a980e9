"""Refresh: what a newer token changes, and what a bad one does not."""

import time

from harness import equal, namespace, section, that, within
from wire import encode

case = section("refresh")
UNCHANGED = "the old token's end and rights stay in force then"


@case("refreshed", "`request` u32; `expires_at` u64 and `expires_in_ms` u64 as in `Connected`.")
def refreshed(run):
    client = run.sign_in(claims={"exp": int(time.time()) + 600})
    exp = int(time.time()) + 7200
    frame = client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, exp=exp))
    within("expires_at - exp", frame.expires_at - exp, 0, 60)
    within("expires_in_ms", frame.expires_in_ms, 7_180_000, 7_261_000)


@case("ended", "| 109 | token expired | no | the token in `Refresh` has ended already | get a new token |")
def ended(run):
    client = run.sign_in()
    error = client.refused(109, "Refresh", token=run.gateway.token(client.user, exp=int(time.time()) - 3600))
    that(not error.temporary, "the Error is temporary")
    client.alive()


@case("not-accepted", "400 (not accepted, another user's, or bound to another device)")
def not_accepted(run):
    client = run.sign_in()
    for token in (
        "x",
        "a.b.c",
        run.gateway.token_of({"sub": client.user, "exp": int(time.time()) + 60}, key=b"k" * 40),
    ):
        that(not client.refused(400, "Refresh", token=token).temporary, "the Error is temporary")
    client.alive()


@case("another-user", "A newer token of the same user.")
def another_user(run):
    client = run.sign_in()
    client.refused(400, "Refresh", token=run.gateway.token(run.user()))
    client.alive()


@case("another-device", "bound to another device")
def another_device(run):
    client = run.sign_in(device="phone")
    client.refused(400, "Refresh", token=run.gateway.token(client.user, device="tablet"))
    client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, device="phone"))


@case("not-yet-valid", "404 (not valid yet)")
def not_yet_valid(run):
    client = run.sign_in()
    now = int(time.time())
    error = client.refused(404, "Refresh", token=run.gateway.token(client.user, nbf=now + 3600, exp=now + 7200))
    that(error.temporary, "the Error is not temporary")


@case("old-token-stays", UNCHANGED, namespace("members"))
def old_token_stays(run):
    room = run.room("members")
    client = run.sign_in(claims={"rooms": [room]})
    client.ask_for("Subscribed", "Subscribe", room=room)
    client.refused(109, "Refresh", token=run.gateway.token(client.user, exp=int(time.time()) - 3600))
    client.refused(400, "Refresh", token="bad")
    run.publish(client, room, b"x")
    client.messages(room, 1)
    that(not client.aside, f"more came: {client.aside}")


@case("new-rights", "The permissions of the new token hold from now on.", namespace("members"))
def new_rights(run):
    room = run.room("members")
    client = run.sign_in()
    client.refused(103, "Subscribe", room=room)
    client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, rooms=[room]))
    client.ask_for("Subscribed", "Subscribe", room=room)


@case("rooms-taken-away", "an `Unsubscribed` with `request` 0 and code 103 follows for each", namespace("members"))
def rooms_taken_away(run):
    kept, gone, gone_too = run.room("members"), run.room("members"), run.room("members")
    open_room = run.room()
    client = run.sign_in(
        claims={"rooms": ["members:*"]}, rooms=[{"room": name} for name in (kept, gone, gone_too, open_room)]
    )
    for name in (kept, gone, gone_too, open_room):
        client.take("Subscribed", room=name)
    client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, rooms=[kept]))
    pushed = {client.take("Unsubscribed", request=0, code=103).room for _ in range(2)}
    equal("rooms taken away", pushed, {gone, gone_too})
    other = run.member(gone, claims={"rooms": ["members:*"]})
    run.publish(other, gone, b"not for the one who may not")
    equal("messages", run.marked(client, client, kept), [])
    that(not client.aside, f"more came: {client.aside}")
    equal("the answer to a Publish there", client.ask("Publish", topic=gone, payload=b"x").name, "Error")
    equal("who is there", other.ask_for("PresenceResult", "Presence", room=gone, limit=0).count, 1)


@case(
    "judged-by-the-new-token", "right behind `Connect` (before `Connected` has come) or `Refresh`", namespace("members")
)
def judged_by_the_new_token(run):
    room = run.room("members")
    client = run.sign_in()
    client.send_bytes(
        encode("Refresh", request=1, token=run.gateway.token(client.user, rooms=[room]))
        + encode("Subscribe", request=2, room=room)
        + encode("Refresh", request=3, token=run.gateway.token(client.user))
        + encode("Subscribe", request=4, room=room)
    )
    equal("the answer to the first", client.answer(1).name, "Refreshed")
    equal("the answer with the new token", client.answer(2).name, "Subscribed")
    equal("the answer to the second", client.answer(3).name, "Refreshed")
    equal("the answer without the right", client.answer(4).name, "Error")


@case("session-goes-on", "when the session ends unless it is refreshed", long=True)
def session_goes_on(run):
    client = run.sign_in(claims={"exp": int(time.time()) + 2})
    left = client.hello.expires_in_ms / 1000
    client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user))
    client.quiet(min(left, 12) + 1.5)
    client.alive()


@case("session-ends", "At `expires_at` the gateway closes with 3005.", long=True)
def session_ends(run):
    client = run.sign_in(claims={"exp": int(time.time()) + 1})
    left, began = client.hello.expires_in_ms / 1000, time.monotonic()
    that(client.goodbye(3005, seconds=left + 10).reconnect, "the client is not told to come back")
    within("seconds until the close", time.monotonic() - began, left - 0.5, left + 8)


@case("shorter-token", "The permissions of the new token hold from now on.", long=True)
def shorter_token(run):
    # A newer token may end earlier than the one before.
    client = run.sign_in()
    frame = client.ask_for("Refreshed", "Refresh", token=run.gateway.token(client.user, exp=int(time.time()) + 1))
    client.goodbye(3005, seconds=frame.expires_in_ms / 1000 + 10)
