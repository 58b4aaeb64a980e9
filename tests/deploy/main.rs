//! The files of deploy/, as they are but for addresses and paths, with real proxies, gateways and Redis: clients come through the
//! proxy under their own addresses, stay, and go elsewhere and resume when a gateway is drained or killed.
//!
//! | file | what |
//! |---|---|
//! | `site` | three gateways with `node.toml`, and a proxy in front |
//! | `guest` | a client that comes through the proxy, and what it has read |
//! | `haproxy`, `nginx`, `ipvs`, `unit` | the tests of each file |

#[path = "../support/mod.rs"]
mod support;

mod guest;
mod haproxy;
mod ipvs;
mod nginx;
mod site;
mod unit;
