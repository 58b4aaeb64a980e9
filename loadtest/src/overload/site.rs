//! A gateway of its own configuration, and the clients of one workload around it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::id::ClientMessageId;
use ringgate_core::wire::Kind;

use super::bystanders::Bystanders;
use super::crowd::{self, Member, Role, Storm};
use super::judge::Row;
use super::line::{Line, SIGN_IN_WITHIN};
use super::pushers::{Pace, Pushers};
use super::tally::Tally;
use super::workload::{self, Unit, Workload};
use crate::gateway::Gateway;
use crate::interrupt;

/// How long is measured: each step of a search for the capacity, and a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) capacity: Duration,
    pub(super) load: Duration,
}

/// See the module.
pub(super) struct Site {
    workload: Workload,
    shards: usize,
    gateway: Gateway,
    metrics: Metrics,
    tally: Arc<Tally>,
    bystanders: Bystanders,
    pushers: Option<Pushers>,
    storm: Option<Arc<Storm>>,
    crowd: Option<JoinHandle<()>>,
    _folder: Folder,
}

/// Steps of a search for the capacity; each has so many times more requests under way.
const STEPS: usize = 4;
const STEP: u64 = 4;
/// Of a load, as a part of its length.
const RAMP: u32 = 5;
/// Between two looks at the gateway's memory and at the schedule of a storm.
const LOOK: Duration = Duration::from_millis(2);
const SAMPLE: Duration = Duration::from_millis(20);
/// Between two looks at its queues after a load.
const SCRAPE: Duration = Duration::from_millis(100);
/// Looks in a row that show the same: what is queued then waits for something that is not the gateway.
const SETTLED: u32 = 5;
/// How long a gateway may take to be itself again before that is given up.
const GIVE_UP: Duration = Duration::from_secs(15);
/// How long the clients of a workload may take to come.
const COME_WITHIN: Duration = Duration::from_secs(60);
/// Users of a storm: more than may be on their way at once, or they would take each other's sessions over.
const STORM_USERS: usize = 2 * crowd::STORM_MAX;
const TOKEN_SECONDS: u64 = 24 * 3600;

impl Site {
    /// Starts a gateway with so many shards and has everybody come who is there before the load.
    pub(super) fn start(workload: Workload, shards: usize) -> Result<Site, String> {
        let folder = Folder::new()?;
        let secret = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let config = folder.0.join("ringgate.toml");
        let text = format!(
            "[runtime]\nshards = {shards}\npin_cores = false\nconnections_per_shard_max = 8192\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\n[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n[logging]\nlevel = \"error\"\n{}",
            workload.config()
        );
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let gateway = Gateway::configured(&config)?;
        let address = address_of(&gateway.tcp)?;
        let signer = Signer::from_key(secret.as_bytes(), None, None)?;
        let token = |user: &str| token(&signer, user);
        let tokens = |count: usize, name: &dyn Fn(usize) -> String| {
            (0..count).map(|number| token(&name(number))).collect::<Result<Vec<_>, String>>()
        };
        let tally = Arc::<Tally>::default();
        let bystanders = Bystanders::start(address, shards, token, tally.clone())?;
        for token in tokens(workload.absent(), &workload::absent)? {
            Line::sign_in(address, &token, &[])?;
        }
        let (mut crowd, mut storm) = (None, None);
        if workload.unit() == Unit::SignIns {
            let members = tokens(STORM_USERS, &workload::reader)?;
            let members = members.into_iter().map(|token| Member { token, room: None }).collect();
            let pace = Arc::<Storm>::default();
            crowd = Some(crowd::spawn(address, Role::Storm(members, pace.clone()), tally.clone())?);
            storm = Some(pace);
        } else if workload.readers() > 0 {
            let members = tokens(workload.readers(), &workload::reader)?.into_iter().enumerate();
            let members = members.map(|(number, token)| Member { token, room: workload.room_of(number) }).collect();
            let role = Role::Stay { members, acknowledge: workload.acknowledges() };
            crowd = Some(crowd::spawn(address, role, tally.clone())?);
            wait_for("everybody to come", &tally, || tally.ready.load(Relaxed) == workload.readers())?;
        }
        let mut pushers = None;
        if workload.pushers() > 0 {
            let tokens = tokens(workload.pushers(), &|number| format!("pusher{number:05}"))?;
            let room = workload.room_of_pushers();
            let (templates, unit) = (workload.templates(), workload.unit());
            pushers = Some(Pushers::start(address, &tokens, room.as_deref(), templates, unit, tally.clone())?);
        }
        prepare(workload, address, &token("author")?)?;
        let metrics = Metrics::new(&gateway.admin);
        Ok(Site { workload, shards, gateway, metrics, tally, bystanders, pushers, storm, crowd, _folder: folder })
    }

    /// The most units a second that come through while requests wait for those before them. More and more are under way, as
    /// long as nobody is closed.
    pub(super) fn capacity(self, times: Times) -> Result<f64, String> {
        let (mut window, mut best) = (self.workload.window(), 0.0);
        for _ in 0..STEPS {
            self.set(Pace::Window(window));
            let at_most = |site: &Site| site.keep_window(window);
            self.watch(times.capacity / 4, at_most);
            let (began, before) = (Instant::now(), self.units());
            self.watch(times.capacity, at_most);
            let rate = (self.units() - before) as f64 / began.elapsed().as_secs_f64();
            let is_clean = self.tally.closes().is_empty();
            if is_clean || best == 0.0 {
                best = rate.max(best);
            }
            if !is_clean {
                break;
            }
            window *= STEP;
        }
        self.end()?;
        Ok(best)
    }

    /// Offers `rate` requests a second, whatever becomes of them, and looks at what does.
    pub(super) fn load(self, factor: f64, capacity: f64, rate: f64, times: Times) -> Result<Row, String> {
        let per_request = self.workload.unit().per_request();
        let process = self.gateway.process();
        let resident = process.resident_bytes();
        self.bystanders.forget();
        let began = Instant::now();
        self.set(Pace::Rate(rate));
        let keep = |site: &Site| site.keep_rate(rate, began);
        let mut most = self.watch(times.load / RAMP, keep);
        let (counting, before) = (Instant::now(), self.counts());
        most = most.max(self.watch(times.load - times.load / RAMP, keep));
        let (seconds, after) = (counting.elapsed().as_secs_f64(), self.counts());
        self.set(Pace::Rest);
        let ended = Instant::now();
        self.bystanders.probe();
        let (mut emptied, mut settling) = (None, Settling::default());
        while (emptied.is_none() || self.bystanders.recovered().is_none())
            && ended.elapsed() < GIVE_UP
            && !self.tally.stopped()
            && !interrupt::asked()
        {
            most = most.max(self.watch(SCRAPE, |_| ()));
            if emptied.is_none()
                && let Ok(queued) = self.metrics.queued()
                && let Some(looks) = settling.is_settled(queued)
            {
                emptied = Some(ended.elapsed().saturating_sub(SCRAPE * looks));
            }
        }
        let per_second = |of: fn(&Counts) -> u64| (of(&after) - of(&before)) as f64 / seconds;
        let seen = &self.bystanders.seen;
        let row = Row {
            workload: self.workload,
            shards: self.shards,
            factor,
            fixed: self.workload.fixed_rate().is_some(),
            capacity,
            offered: per_second(|counts| counts.sent + counts.withheld) * per_request,
            sent: per_second(|counts| counts.sent) * per_request,
            goodput: per_second(|counts| counts.units),
            refused: per_second(|counts| counts.refused),
            refusals: self.tally.refusals(),
            closes: self.tally.closes(),
            resident: [resident, most],
            growth_max: self.workload.growth_max(self.shards),
            pong: Duration::from_micros(seen.pong_us.load(Relaxed)),
            late: Duration::from_micros(seen.late_us.load(Relaxed)),
            recovered: self.bystanders.recovered(),
            emptied,
            faults: self.faults(),
        };
        self.end()?;
        Ok(row)
    }

    fn set(&self, pace: Pace) {
        if let Some(pushers) = &self.pushers {
            pushers.set(pace);
        }
    }

    /// So many clients of a storm under way.
    fn keep_window(&self, window: u64) {
        if let Some(storm) = &self.storm {
            storm.due.store(self.tally.sign_ins.load(Relaxed) + window, Relaxed);
        }
    }

    /// So many of them a second.
    fn keep_rate(&self, rate: f64, since: Instant) {
        if let Some(storm) = &self.storm {
            storm.due.store((since.elapsed().as_secs_f64() * rate) as u64, Relaxed);
        }
    }

    /// Waits for so long, and has `keep` keep up the load. Returns the most bytes that the gateway held meanwhile.
    fn watch(&self, time: Duration, keep: impl Fn(&Site)) -> u64 {
        let process = self.gateway.process();
        let (until, mut sample, mut most) = (Instant::now() + time, Instant::now(), 0);
        while Instant::now() < until && !self.tally.stopped() && !interrupt::asked() {
            keep(self);
            if Instant::now() >= sample {
                sample = Instant::now() + SAMPLE;
                most = most.max(process.resident_bytes());
            }
            std::thread::sleep(LOOK);
        }
        most
    }

    fn units(&self) -> u64 {
        match self.workload.unit() {
            Unit::Deliveries(_) => self.tally.deliveries.load(Relaxed),
            Unit::Answers => self.tally.answers.load(Relaxed),
            Unit::SignIns => self.tally.sign_ins.load(Relaxed),
        }
    }

    fn counts(&self) -> Counts {
        let (sent, withheld) = match (&self.pushers, &self.storm) {
            (Some(pushers), _) => (pushers.pushed.written.load(Relaxed), pushers.pushed.withheld.load(Relaxed)),
            (None, Some(storm)) => (storm.begun.load(Relaxed), storm.withheld.load(Relaxed)),
            (None, None) => (0, 0),
        };
        Counts { units: self.units(), sent, withheld, refused: self.tally.refused.load(Relaxed) }
    }

    /// What the driver could not do, or what ended that should not have.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.tally.faults();
        if self.gateway.has_ended() {
            faults.push("the gateway has ended".to_owned());
        }
        let gone = self.pushers.as_ref().map_or(0, |pushers| self.workload.pushers() - pushers.alive());
        if gone > 0 {
            faults.push(format!("{gone} of {} clients that push were closed", self.workload.pushers()));
        }
        faults
    }

    /// Everybody leaves, and the gateway ends: at once, it is not its leaving that is looked at.
    fn end(self) -> Result<(), String> {
        self.tally.stop();
        self.bystanders.join();
        if let Some(pushers) = self.pushers {
            pushers.join();
        }
        if let Some(crowd) = self.crowd {
            crowd.join().map_err(|_| "the thread of the readers has failed".to_owned())?;
        }
        Ok(())
    }
}

/// At one moment, since the clients came.
struct Counts {
    units: u64,
    sent: u64,
    withheld: u64,
    refused: u64,
}

/// Publishes what the workload's requests ask for.
fn prepare(workload: Workload, gateway: SocketAddr, token: &str) -> Result<(), String> {
    let Some((template, count)) = workload.prepared() else { return Ok(()) };
    let mut line = Line::sign_in(gateway, token, &[])?;
    for number in 0..count as u64 {
        template.append(&mut line.out, ClientMessageId { high: u64::MAX, low: number + 1 });
    }
    let (mut published, deadline) = (0, Instant::now() + SIGN_IN_WITHIN);
    while published < count {
        let ended = line.exchange(|_| false, |kind, _| published += usize::from(kind == Kind::Published));
        if ended.is_err() || Instant::now() > deadline {
            return Err(format!("only {published} of {count} messages were published before the load"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn wait_for(what: &str, tally: &Tally, done: impl Fn() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + COME_WITHIN;
    while !done() {
        let faults = tally.faults();
        if let Some(fault) = faults.first() {
            return Err(fault.clone());
        }
        if Instant::now() > deadline || interrupt::asked() {
            return Err(format!("waited {} s for {what}; closed: {:?}", COME_WITHIN.as_secs(), tally.closes()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn token(signer: &Signer, user: &str) -> Result<String, String> {
    let issued_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let spec = TokenSpec { user: user.to_owned(), issued_at, ttl_seconds: TOKEN_SECONDS, ..TokenSpec::default() };
    signer.sign(&spec)
}

fn address_of(url: &str) -> Result<SocketAddr, String> {
    let address = url.strip_prefix("tcp://").unwrap_or(url);
    address.parse().map_err(|_| format!("the gateway says that it listens on \"{url}\""))
}

/// What the gateway says of itself.
struct Metrics {
    url: String,
    agent: ureq::Agent,
}

/// A gateway that has so much to do answers later.
const SCRAPE_WITHIN: Duration = Duration::from_secs(2);

impl Metrics {
    fn new(admin: &str) -> Metrics {
        // A proxy of the environment is for the internet.
        let config = ureq::Agent::config_builder().timeout_global(Some(SCRAPE_WITHIN)).proxy(None).build();
        Metrics { url: format!("{admin}/metrics"), agent: config.into() }
    }

    /// Deliveries that wait, in outboxes or in a log.
    fn queued(&self) -> Result<u64, String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let sums = sums(&text);
        let of = |name: &str| sums.get(name).copied().ok_or_else(|| format!("{name} is missing"));
        Ok((of("ringgate_deliveries_queued")? + of("ringgate_deliveries_deferred")?) as u64)
    }
}

/// Samples by name, summed over their labels.
fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or_default();
        *sums.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap_or(0.0);
    }
    sums
}

/// Sees when a queue is empty, or stays as long as it is.
#[derive(Default)]
struct Settling {
    last: Option<u64>,
    same: u32,
}

impl Settling {
    /// With the newest look; for how many looks it has been so already.
    fn is_settled(&mut self, queued: u64) -> Option<u32> {
        if self.last.replace(queued) == Some(queued) {
            self.same += 1;
        } else {
            self.same = 0;
        }
        (queued == 0 || self.same >= SETTLED).then_some(self.same)
    }
}

/// Removed when dropped.
struct Folder(PathBuf);

static FOLDERS: AtomicUsize = AtomicUsize::new(0);

impl Folder {
    fn new() -> Result<Folder, String> {
        let number = FOLDERS.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("ringgate-overload-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_that_is_empty_or_stays_then_settled() {
        let mut settling = Settling::default();
        assert_eq!([5, 4, 0].map(|queued| settling.is_settled(queued)), [None, None, Some(0)]);
        let mut settling = Settling::default();
        let looks = [9, 7, 7, 7, 7, 7, 7].map(|queued| settling.is_settled(queued));
        assert_eq!(looks, [None, None, None, None, None, None, Some(SETTLED)]);
    }

    #[test]
    fn samples_of_one_name_then_one_sum() {
        let text = "# TYPE a gauge\na{shard=\"0\"} 2\na{shard=\"1\"} 3\nb 1\n# EOF\n";
        assert_eq!(sums(text), BTreeMap::from([("a".to_owned(), 5.0), ("b".to_owned(), 1.0)]));
    }
}
