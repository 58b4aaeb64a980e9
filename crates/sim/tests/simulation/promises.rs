//! Promises of docs/protocol.md that the core does not keep yet. The simulation checks each of them once its constant
//! is true; it is set with the change that mends the core, and goes then.

/// A device that has lost messages is told so by `inbox_recovered` = false until it has heard it. Today the home moves the cursor
/// behind the loss when the device connects: when that connection ends before `Connected` has come, the next one says true.
pub(crate) const LOSSES_ARE_TOLD_UNTIL_HEARD: bool = true;
/// A client that is brought again what it has kept acknowledges the last message that it has kept, as docs/protocol.md wants
/// it. Today an Ack of more than has come again is ignored, and when not all fits into the outbox or into `in_flight_max`, the
/// feed stands still for good.
pub(crate) const ACKS_AHEAD_COUNT: bool = true;
