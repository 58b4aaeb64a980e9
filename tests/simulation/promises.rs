//! Promises of docs/protocol.md that the core does not keep yet. The simulation checks each of them once its constant
//! is true; it is set with the change that mends the core, and goes when all are.

/// Subscribe and Unsubscribe take effect for every frame behind them, answered or not: a Publish right behind a Subscribe
/// is accepted, an Unsubscribe right behind it leaves. Today both are answered with 401 until the home has answered.
pub(crate) const REQUESTS_ARE_HANDLED_IN_ORDER: bool = false;
/// What is sent behind Connect is handled after `Connected`. Today it closes the connection with 3501.
pub(crate) const FRAMES_BEHIND_CONNECT_ARE_KEPT: bool = false;
/// The rooms of Connect do not count among the requests in flight. Today some of them are refused with 403.
pub(crate) const CONNECT_ROOMS_HAVE_ROOM_OF_THEIR_OWN: bool = false;
/// A repetition of a message that is stored is answered with its place, whatever the session may do by now. Today rights
/// and membership are looked at first.
pub(crate) const REPETITIONS_ARE_ANSWERED_FIRST: bool = false;
/// `inbox_recovered` is false, too, when the cursor that the gateway keeps has fallen out of the log.
pub(crate) const STORED_CURSORS_ARE_CHECKED: bool = false;
/// The last event that a member sees of another one agrees with who is there. Today a takeover may end with Left.
pub(crate) const JOINED_AND_LEFT_END_RIGHT: bool = false;
/// A session that a Refresh leaves without the right to a room is taken out of it. Today it stays.
pub(crate) const REFRESH_TAKES_ROOMS_AWAY: bool = false;
/// A Refresh with the token of another device is refused. Today it is accepted.
pub(crate) const REFRESH_IS_BOUND_TO_THE_DEVICE: bool = false;
/// History without `since` lists the newest messages that are alive. Today expired ones count against the limit.
pub(crate) const HISTORY_LISTS_THE_NEWEST: bool = false;
/// History with limit 0 never says `more`: there is no message to go on from.
pub(crate) const HISTORY_OF_NOTHING_HAS_NO_MORE: bool = false;
/// A client that is brought again what it has kept acknowledges the last message that it has kept, as docs/protocol.md wants
/// it. Today an Ack of more than has come again is ignored, and when not all fits into the outbox or into `in_flight_max`, the
/// feed stands still for good.
pub(crate) const ACKS_AHEAD_COUNT: bool = false;
