//! `mixed`: a load that a TOML file describes: populations of clients, what they do, and how that changes over time.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgate_net::dial::Url;
use serde::Deserialize;

use crate::Outcome;
use crate::crew::Muster;
use crate::number;
use crate::options::{Link, Output};
use crate::plan::{Order, Tally};
use crate::record::{Measure, Names, StreamName};
use crate::report::{RAMP, Report};
use crate::run::Run;
use crate::threshold::Threshold;
use crate::traffic::{Kind, Pace, Traffic};

/// Options of `mixed`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to do; `ringgate-loadtest mixed-example` prints one with every key explained.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// URL of the populations whose scheme --url does not have: tls:// for those with `tls`, if --url is tcp://, or the reverse.
    #[arg(long, value_name = "URL")]
    other_url: Option<Url>,
    #[command(flatten)]
    link: Link,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    _elsewhere: Elsewhere,
}

/// Options of other loads, so that the error names the file: clap would propose an option that means something else.
#[derive(clap::Args, Clone, Debug)]
struct Elsewhere {
    #[arg(long = "connections", hide = true, value_parser = in_file)]
    _connections: Option<String>,
    #[arg(long = "rate", hide = true, value_parser = in_file)]
    _rate: Option<String>,
    #[arg(long = "duration", hide = true, value_parser = in_file)]
    _duration: Option<String>,
    #[arg(long = "poisson", hide = true, num_args = 0..=1, default_missing_value = "", value_parser = in_file)]
    _poisson: Option<String>,
    #[arg(long = "closed-loop", hide = true, value_parser = in_file)]
    _closed_loop: Option<String>,
    #[arg(long = "warm-up", hide = true, value_parser = in_file)]
    _warm_up: Option<String>,
    #[arg(long = "payload-bytes", hide = true, value_parser = in_file)]
    _payload_bytes: Option<String>,
    #[arg(long = "rooms", hide = true, value_parser = in_file)]
    _rooms: Option<String>,
    #[arg(long = "publishers", hide = true, value_parser = in_file)]
    _publishers: Option<String>,
    #[arg(long = "room-name", hide = true, value_parser = in_file)]
    _room_name: Option<String>,
    #[arg(long = "slow-share", hide = true, value_parser = in_slow)]
    _slow_share: Option<String>,
}

fn in_file(_: &str) -> Result<String, String> {
    Err("mixed has it in its FILE, for each population, stream or phase; `ringgate-loadtest mixed-example` prints one with \
         every key explained"
        .to_owned())
}

fn in_slow(_: &str) -> Result<String, String> {
    Err("mixed has no readers that stop reading; slow has".to_owned())
}

/// Most populations of a file: each has a number of one byte.
const POPULATIONS_MAX: usize = 255;

/// Ends an error about a file that could not be parsed.
const SEE_EXAMPLE: &str = "`ringgate-loadtest mixed-example` prints a file with every key explained";

/// An example with every key explained.
pub(crate) const EXAMPLE: &str = include_str!("../mixed.toml");

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    fail_if: Vec<String>,
    populations: Vec<Population>,
    #[serde(default)]
    streams: Vec<Stream>,
    phases: Vec<Phase>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Population {
    name: String,
    #[serde(deserialize_with = "number::count_in_file")]
    connections: u32,
    #[serde(default)]
    tls: bool,
    #[serde(default, deserialize_with = "number::rate_in_file")]
    churn: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    /// In reports and thresholds; that of the population if not given.
    name: Option<String>,
    population: String,
    kind: StreamKind,
    #[serde(default, deserialize_with = "number::rate_in_file_if_any")]
    rate: Option<f64>,
    think_time: Option<String>,
    #[serde(default)]
    poisson: bool,
    #[serde(default = "default_payload", deserialize_with = "number::count_in_file")]
    payload_bytes: u32,
    #[serde(default = "one", deserialize_with = "number::count_in_file")]
    rooms: u32,
    #[serde(default = "default_publishers", deserialize_with = "number::count_in_file")]
    publishers: u32,
    #[serde(default = "default_room")]
    room: String,
    /// Names of the phases in which it sends; all of them if not given.
    phases: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StreamKind {
    Pairs,
    Rooms,
    Pings,
}

impl StreamKind {
    /// As it is written in the file.
    fn label(self) -> &'static str {
        match self {
            StreamKind::Pairs => "pairs",
            StreamKind::Rooms => "rooms",
            StreamKind::Pings => "pings",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phase {
    name: String,
    duration: String,
    #[serde(default = "full_load")]
    load: Load,
    #[serde(default = "yes")]
    measured: bool,
}

/// One factor, or one for the beginning and one for the end.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Load {
    Steady(f64),
    Ramp([f64; 2]),
}

fn default_payload() -> u32 {
    100
}

fn one() -> u32 {
    1
}

fn default_publishers() -> u32 {
    4
}

fn default_room() -> String {
    "chat:mixed".to_owned()
}

fn full_load() -> Load {
    Load::Steady(1.0)
}

fn yes() -> bool {
    true
}

impl Load {
    fn ends(self) -> [f64; 2] {
        match self {
            Load::Steady(load) => [load, load],
            Load::Ramp(ends) => ends,
        }
    }
}

/// A file, checked.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// The file as it was read.
    text: String,
    seed: u64,
    /// Its thresholds.
    pub(crate) fail_if: Vec<Threshold>,
    /// Connections: plain, TLS.
    pub(crate) connections: [usize; 2],
    /// Clients of each population.
    populations: Vec<Range<u32>>,
    /// What populations and streams are called in reports and thresholds.
    pub(crate) names: Names,
    /// Clients of each population that comes and goes, and how many do per second.
    churn: Vec<(Range<u32>, f64)>,
    streams: Vec<(Traffic, How)>,
    /// Of each stream, whether it sends in each phase.
    active: Vec<Vec<bool>>,
    phases: Vec<Step>,
}

/// When the messages of a stream are sent, at a load of 1.
#[derive(Clone, Copy, Debug)]
enum How {
    Rate { rate: f64, random: bool },
    Think(Duration),
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    duration: Duration,
    load: [f64; 2],
    measured: bool,
}

impl Mix {
    /// Reads and checks a file. Errors name it, the key and what would be right.
    pub(crate) fn read(path: &Path) -> Result<Mix, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}; {SEE_EXAMPLE}", path.display()))?;
        Mix::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Mix, String> {
        let script: Script = toml::from_str(text).map_err(|error| misread(text, &error))?;
        if script.populations.is_empty() || script.phases.is_empty() {
            return Err("needs at least one of [[populations]] and one of [[phases]]".to_owned());
        }
        if script.populations.len() > POPULATIONS_MAX {
            return Err(format!("{} populations are more than {POPULATIONS_MAX}", script.populations.len()));
        }
        let all = |with_tls: bool| {
            let population = script.populations.iter().filter(move |population| population.tls == with_tls);
            population.map(|population| u64::from(population.connections)).sum::<u64>()
        };
        if all(false) + all(true) > u64::from(crate::CONNECTIONS_MAX) {
            return Err(format!("populations: more than {} connections", crate::CONNECTIONS_MAX));
        }
        let [plain, tls] = [all(false) as u32, all(true) as u32];
        // Plain clients are numbered first, then those with TLS.
        let mut next = [0, plain];
        let mut clients: Vec<(String, Range<u32>)> = Vec::new();
        let mut churn = Vec::new();
        for (index, population) in script.populations.iter().enumerate() {
            let key = format!("populations[{index}] \"{}\"", population.name);
            if population.connections == 0 {
                return Err(format!("{key}: connections must be above 0"));
            }
            if clients.iter().any(|(name, _)| *name == population.name) {
                return Err(format!("{key}: there is another one of this name"));
            }
            if !(0.0..=1e6).contains(&population.churn) {
                return Err(format!("{key}: churn {} must be a number per second from 0 to 1000000", population.churn));
            }
            let first = &mut next[usize::from(population.tls)];
            let range = *first..*first + population.connections;
            *first = range.end;
            if population.churn > 0.0 {
                churn.push((range.clone(), population.churn));
            }
            clients.push((population.name.clone(), range));
        }
        let names = Names {
            populations: clients.iter().map(|(name, _)| name.clone()).collect(),
            streams: stream_names(&script)?,
        };
        let streams = script.streams.iter().zip(1u8..).enumerate();
        let streams = streams
            .map(|(index, (stream, series))| {
                stream.check(&clients, series).map_err(|error| format!("streams[{index}]: {error}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let phases = script.phases.iter().enumerate();
        let phases = phases
            .map(|(index, phase)| phase.check().map_err(|error| format!("phases[{index}] \"{}\": {error}", phase.name)))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, (stream, _)) in streams.iter().enumerate() {
            let in_rooms = |other: &Traffic| matches!(other.kind, Kind::Rooms { .. }) && other.first == stream.first;
            if in_rooms(stream) && streams[..index].iter().any(|(other, _)| in_rooms(other)) {
                return Err(format!("streams[{index}]: a population is in the rooms of one stream only"));
            }
            if let Some((other, _)) =
                streams[..index].iter().enumerate().find(|(_, (other, _))| other.shares_rooms(stream))
            {
                let name = if let Kind::Rooms { name, .. } = &stream.kind { name } else { "" };
                return Err(format!(
                    "streams[{index}]: room \"{name}\" is one of streams[{other}], whose messages would be counted wrong; give it another name"
                ));
            }
        }
        let fail_if = script.fail_if.iter().enumerate();
        let fail_if = fail_if
            .map(|(index, text)| text.parse().map_err(|error| format!("fail_if[{index}]: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        let connections = [plain as usize, tls as usize];
        let populations = clients.into_iter().map(|(_, clients)| clients).collect();
        let active = active(&script)?;
        let Script { seed, .. } = script;
        Ok(Mix {
            text: text.to_owned(),
            seed,
            fail_if,
            connections,
            populations,
            names,
            churn,
            streams,
            active,
            phases,
        })
    }
}

/// Of each stream, whether it sends in each phase.
fn active(script: &Script) -> Result<Vec<Vec<bool>>, String> {
    let of = |(index, stream): (usize, &Stream)| {
        let Some(wanted) = &stream.phases else { return Ok(vec![true; script.phases.len()]) };
        let is_known = |name: &&String| script.phases.iter().any(|phase| phase.name == **name);
        if let Some(name) = wanted.iter().find(|name| !is_known(name)) {
            let known: Vec<_> = script.phases.iter().map(|phase| phase.name.as_str()).collect();
            return Err(format!("streams[{index}]: there is no phase \"{name}\"; there are {}", known.join(", ")));
        }
        Ok(script.phases.iter().map(|phase| wanted.contains(&phase.name)).collect())
    };
    script.streams.iter().enumerate().map(of).collect()
}

/// An error of the TOML parser with the number and the text of its line, and where to find an example.
fn misread(text: &str, error: &toml::de::Error) -> String {
    // An empty file has no line to show.
    let at = error.span().map(|span| span.start).filter(|_| text.lines().count() > 0);
    let line = at.and_then(|at| text.get(..at)).map(|before| before.matches('\n').count() + 1);
    let place = line.map_or_else(String::new, |line| {
        let found = text.lines().nth(line - 1).unwrap_or_default().trim();
        if found.is_empty() { format!("line {line}: ") } else { format!("line {line} (`{found}`): ") }
    });
    format!("{place}{}; {SEE_EXAMPLE}", error.message())
}

/// What each stream is called: its own name, or that of its population, with what it sends if the population has several
/// streams without a name.
fn stream_names(script: &Script) -> Result<Vec<StreamName>, String> {
    if script.streams.len() > usize::from(u8::MAX) {
        return Err(format!("{} streams are more than {}", script.streams.len(), u8::MAX));
    }
    let mut names: Vec<StreamName> = Vec::new();
    for (index, stream) in script.streams.iter().enumerate() {
        let name = match &stream.name {
            Some(name) => {
                let is_good = |character: char| character.is_alphanumeric() || "-_".contains(character);
                if name.is_empty() || !name.chars().all(is_good) {
                    return Err(format!("streams[{index}]: name \"{name}\" must be of letters, digits, - and _"));
                }
                let is_others = |other: &Population| other.name == *name && other.name != stream.population;
                if script.populations.iter().any(is_others) {
                    return Err(format!("streams[{index}]: name \"{name}\" is that of a population of others"));
                }
                name.clone()
            }
            None => {
                let unnamed = |other: &&Stream| other.name.is_none() && other.population == stream.population;
                let of_kind = |other: &&Stream| unnamed(other) && other.kind == stream.kind;
                let place = script.streams[..index].iter().filter(of_kind).count() + 1;
                match script.streams.iter().filter(unnamed).count() {
                    1 => stream.population.clone(),
                    _ if place > 1 => format!("{}-{}-{place}", stream.population, stream.kind.label()),
                    _ => format!("{}-{}", stream.population, stream.kind.label()),
                }
            }
        };
        if names.iter().any(|other| other.name == name) {
            return Err(format!("streams[{index}]: there is another stream of the name \"{name}\""));
        }
        names.push(StreamName { name, pings: stream.kind == StreamKind::Pings });
    }
    Ok(names)
}

impl Stream {
    fn check(&self, populations: &[(String, Range<u32>)], stream: u8) -> Result<(Traffic, How), String> {
        let Some((_, clients)) = populations.iter().find(|(name, _)| *name == self.population) else {
            let known: Vec<_> = populations.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("there is no population \"{}\"; there are {}", self.population, known.join(", ")));
        };
        let count = clients.end - clients.start;
        let how = match (self.rate, &self.think_time) {
            (Some(rate), _) if rate > number::RATE_MAX => {
                return Err(format!("rate {rate} must be at most {} per second", number::RATE_MAX));
            }
            (Some(rate), None) if rate > 0.0 && rate.is_finite() => How::Rate { rate, random: self.poisson },
            (Some(rate), None) => return Err(format!("rate {rate} must be a number above 0")),
            (None, Some(_)) if self.poisson => return Err("poisson goes with rate; think times are random".to_owned()),
            (None, Some(text)) => How::Think(duration("think_time", text)?),
            _ => return Err("needs either rate (open loop) or think_time (closed loop)".to_owned()),
        };
        if !(32..=16 << 20).contains(&self.payload_bytes) {
            return Err(format!("payload_bytes {} must be from 32 to 16777216", self.payload_bytes));
        }
        let kind = match self.kind {
            StreamKind::Pairs if count < 2 => return Err("pairs need at least two connections".to_owned()),
            StreamKind::Pairs => Kind::Pairs,
            StreamKind::Pings => Kind::Pings,
            StreamKind::Rooms if self.rooms == 0 || self.rooms > count => {
                return Err(format!("rooms {} must be from 1 to the population's {count}", self.rooms));
            }
            StreamKind::Rooms if self.publishers == 0 => return Err("publishers must be above 0".to_owned()),
            StreamKind::Rooms => Kind::Rooms {
                name: self.room.clone(),
                rooms: self.rooms,
                publishers: self.publishers.min(count / self.rooms),
            },
        };
        let traffic = Traffic {
            stream,
            kind,
            first: clients.start,
            clients: count,
            start_ns: 0,
            duration: Duration::ZERO,
            pace: Pace::constant(0.0),
            payload_bytes: self.payload_bytes as usize,
        };
        Ok((traffic, how))
    }
}

impl Phase {
    fn check(&self) -> Result<Step, String> {
        if self.name == RAMP {
            return Err("that is what the ramp is called; give the phase another name".to_owned());
        }
        let load = self.load.ends();
        if !load.iter().all(|load| (0.0..=1e3).contains(load)) {
            return Err("load must be a factor from 0 to 1000, or two: [at the beginning, at the end]".to_owned());
        }
        let duration = duration("duration", &self.duration)?;
        Ok(Step { name: self.name.clone(), duration, load, measured: self.measured })
    }
}

fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let ms = ringgate_core::units::parse_duration_ms(text).map_err(|error| format!("{key} \"{text}\": {error}"))?;
    if ms == 0 { Err(format!("{key} must be above 0")) } else { Ok(Duration::from_millis(ms)) }
}

impl How {
    /// The pace in a phase; none if nothing is sent.
    fn pace(self, load: [f64; 2], seed: u64) -> Option<Pace> {
        match self {
            _ if load == [0.0, 0.0] => None,
            How::Rate { rate, random } => {
                Some(Pace::Open { from: rate * load[0], to: rate * load[1], seed: random.then_some(seed) })
            }
            // A higher load shortens think times.
            How::Think(think) => Some(Pace::Closed { window: 1, think: think.div_f64((load[0] + load[1]) / 2.0) }),
        }
    }
}

/// Runs the file, alone or with the workers of a muster, and writes all results.
pub(crate) fn run(options: &Options, muster: Option<Muster>) -> Result<Outcome, String> {
    let mix = Mix::read(&options.file)?;
    for (count, tls) in mix.connections.iter().zip([false, true]) {
        let known = options.link.url.tls == tls || options.other_url.as_ref().is_some_and(|url| url.tls == tls);
        if *count > 0 && !known {
            let scheme = if tls { "tls" } else { "tcp" };
            return Err(format!("a population needs {scheme}://; say where with --other-url {scheme}://HOST:PORT"));
        }
    }
    options.link.check(mix.connections[1] > 0)?;
    let mut load = options.link.load(mix.connections);
    load.insert("scenario".to_owned(), "mixed".into());
    load.insert("mixture".to_owned(), mix.text.clone().into());
    let mut output = options.output.clone();
    output.fail_if.extend(mix.fail_if.iter().cloned());
    let mut assignment = options.link.assignment(mix.connections, options.other_url.as_ref());
    assignment.populations = mix.populations.clone();
    assignment.addressed = mix.streams.iter().any(|(traffic, _)| traffic.kind == Kind::Pairs);
    output.check()?;
    let only_pings = !mix.names.has_messages();
    let mut phases = vec![RAMP.to_owned()];
    phases.extend(mix.phases.iter().map(|phase| phase.name.clone()));
    output.check_thresholds("this mixture", &mix.names, phases)?;
    let drivers = options.link.drivers(&assignment, muster)?;
    let notes = mix.notes();
    output.announce(&notes);
    let mut run = output.start(assignment, drivers, "mixed")?;
    run.name(mix.names.clone());
    run.main_measure(if only_pings { Measure::Ping } else { Measure::Deliver });
    let has_payload = |traffic: &&Traffic| traffic.kind != Kind::Pings;
    let payloads = mix.streams.iter().map(|(traffic, _)| traffic).filter(has_payload);
    let longest = payloads.map(|traffic| traffic.payload_bytes).max().unwrap_or(0);
    let result = options.link.ramp(&mut run, mix.connections);
    if let Some(refused) = result.is_ok().then(|| run.check_payload(longest).err()).flatten() {
        run.finish();
        return Err(format!("{}: payload_bytes: {refused}", options.file.display()));
    }
    let result = result.and_then(|()| match run.interrupted() {
        true => Ok(()),
        false => mix.drive(&mut run).and_then(|()| run.rest()),
    });
    output.conclude(&Report { notes, ..output.finish(run, load, result) })
}

impl Mix {
    /// See [`Kind::note`]; each with the name of its stream.
    fn notes(&self) -> Vec<String> {
        let named = self.streams.iter().zip(&self.names.streams);
        named
            .filter_map(|((traffic, _), name)| Some(format!("{}: {}", name.name, traffic.kind.note(traffic.clients)?)))
            .collect()
    }

    /// Drives clients that are connected through all phases.
    pub(crate) fn drive(&self, run: &mut Run) -> Result<(), String> {
        for (traffic, _) in &self.streams {
            run.join(traffic)?;
        }
        for (number, phase) in self.phases.iter().enumerate() {
            if phase.measured {
                run.phase(&phase.name);
            } else {
                run.warm_up(&phase.name);
            }
            let lead = run.lead();
            for (index, (traffic, how)) in self.streams.iter().enumerate() {
                let is_active = self.active.get(index).and_then(|phases| phases.get(number)).copied().unwrap_or(true);
                if !is_active {
                    continue;
                }
                let seed = self.seed.wrapping_add(((number as u64) << 32) + index as u64 + 1);
                if let Some(pace) = how.pace(phase.load, seed) {
                    run.begin(Traffic { pace, duration: phase.duration, ..traffic.clone() }, lead);
                }
            }
            let from_ns = run.now_ns() + lead.as_nanos() as u64;
            let until_ns = from_ns + phase.duration.as_nanos() as u64;
            for (clients, per_second) in &self.churn {
                let rate = per_second * (phase.load[0] + phase.load[1]) / 2.0;
                if rate > 0.0 {
                    run.order(Order::Churn { clients: clients.clone(), rate, from_ns, until_ns });
                }
            }
            run.hold(lead + phase.duration)?;
            if run.interrupted() {
                break;
            }
        }
        run.settle(Tally::is_settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_is_read_then_it_is_accepted() {
        let mix = Mix::parse(EXAMPLE).unwrap();
        assert!(mix.connections[0] > 0 && mix.streams.len() > 1 && mix.phases.len() > 3 && !mix.fail_if.is_empty());
        assert!(!mix.churn.is_empty());
    }

    #[test]
    fn population_uses_tls_then_its_clients_are_numbered_last() {
        let text = "[[populations]]\nname='a'\nconnections=10\ntls=true\n[[populations]]\nname='b'\nconnections=20\n\
                    [[streams]]\npopulation='a'\nkind='pairs'\nthink_time='2s'\n\
                    [[streams]]\npopulation='b'\nkind='rooms'\nrooms=2\nrate=5\n\
                    [[phases]]\nname='p'\nduration='1s'\nload=[0.5, 1.5]";
        let mix = Mix::parse(text).unwrap();
        assert_eq!(mix.connections, [20, 10]);
        let first: Vec<_> = mix.streams.iter().map(|(traffic, _)| traffic.first).collect();
        assert_eq!(first, [20, 0]);
        let pace = |stream: usize| mix.streams[stream].1.pace(mix.phases[0].load, 1);
        assert_eq!(pace(0), Some(Pace::Closed { window: 1, think: Duration::from_secs(2) }));
        assert_eq!(pace(1), Some(Pace::Open { from: 2.5, to: 7.5, seed: None }));
    }

    #[test]
    fn stream_has_no_name_then_it_is_named_after_its_population() {
        let names = |streams: &[(&str, &str, &str)]| {
            let mut text = "[[populations]]\nname='a'\nconnections=10\n[[populations]]\nname='b'\nconnections=10\n\
                [[phases]]\nname='p'\nduration='1s'\n"
                .to_owned();
            for (population, kind, more) in streams {
                text += &format!("[[streams]]\npopulation='{population}'\nkind='{kind}'\nrate=1\n{more}\n");
            }
            Mix::parse(&text).map(|mix| (mix.names, mix.streams.iter().map(|(traffic, _)| traffic.stream).collect()))
        };
        let joined =
            |names: &Names| names.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>().join(" ");
        let (of, series): (_, Vec<u8>) =
            names(&[("a", "pairs", ""), ("b", "pairs", ""), ("b", "pings", ""), ("b", "pings", "")]).unwrap();
        assert_eq!((joined(&of), series), ("a b-pairs b-pings b-pings-2".to_owned(), vec![1, 2, 3, 4]));
        assert_eq!(of.populations, ["a", "b"]);
        let (of, _) = names(&[("a", "pairs", "name='chat'"), ("a", "pings", ""), ("b", "pings", "name='b'")]).unwrap();
        assert_eq!(joined(&of), "chat a b");
        let error = |streams: &[_]| names(streams).unwrap_err();
        assert!(error(&[("a", "pairs", "name='b'")]).contains("\"b\" is that of a population of others"));
        let twice = error(&[("a", "pairs", "name='x'"), ("b", "pairs", "name='x'")]);
        assert!(twice.contains("streams[1]: there is another stream of the name \"x\""), "{twice}");
    }

    #[test]
    fn stream_names_its_phases_then_it_sends_in_these_alone() {
        let text = "[[populations]]\nname='a'\nconnections=10\n\
                    [[streams]]\nname='x'\npopulation='a'\nkind='pings'\nrate=1\nphases=['q']\n\
                    [[streams]]\nname='y'\npopulation='a'\nkind='pings'\nrate=1\n\
                    [[phases]]\nname='p'\nduration='1s'\n[[phases]]\nname='q'\nduration='1s'";
        assert_eq!(Mix::parse(text).unwrap().active, [[false, true], [true, true]]);
    }

    #[test]
    fn file_is_wrong_then_the_error_says_what_would_be_right() {
        let good = "[[populations]]\nname='a'\nconnections=10\n[[phases]]\nname='p'\nduration='1s'\n";
        for (more, part) in [
            ("[[streams]]\npopulation='b'\nkind='pairs'\nrate=1", "there is no population \"b\"; there are a"),
            ("[[streams]]\npopulation='a'\nkind='pairs'", "either rate"),
            ("[[streams]]\npopulation='a'\nkind='pairs'\nrate=1\nthink_time='1s'", "either rate"),
            ("[[streams]]\npopulation='a'\nkind='pairs'\nrate=0", "above 0"),
            ("[[streams]]\npopulation='a'\nkind='pears'\nrate=1", "pairs"),
            ("[[streams]]\npopulation='a'\nkind='rooms'\nrate=1\nrooms=11", "from 1 to the population's 10"),
            ("[[streams]]\npopulation='a'\nkind='pings'\nrate=1\npayload_bytes=3", "from 32"),
            ("[[streams]]\npopulation='a'\nkind='pings'\nrate=1\nname='a b'", "letters, digits, - and _"),
            ("[[streams]]\npopulation='a'\nkind='pings'\nrate=1\nphases=['p','q']", "no phase \"q\"; there are p"),
            ("[[populations]]\nname='a'\nconnections=1", "another one of this name"),
            ("[[phases]]\nname='q'\nduration='soon'", "phases[1] \"q\": duration"),
            ("[[phases]]\nname='q'\nduration='1s'\nload=-1.0", "factor"),
            ("[[phases]]\nname='q'\nduration='1s'\nlod=1.0", "lod"),
        ] {
            let error = Mix::parse(&format!("{good}{more}")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = Mix::parse(&format!("fail_if = ['q98>1ms']\n{good}")).unwrap_err();
        assert!(error.contains("fail_if[0]") && error.contains("p99.9"), "{error}");
    }
}
