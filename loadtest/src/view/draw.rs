//! Draws a scene. A pure function of its arguments: no terminal, clock or thread.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, Paragraph, Sparkline};

use super::scene::Scene;
use crate::guard::Standing;
use crate::record::human_us;
use crate::timeline::Point;

/// Width of the smallest terminal with a screen; a smaller one shows lines.
pub(super) const WIDTH_MIN: u16 = 60;
/// Its height.
pub(super) const HEIGHT_MIN: u16 = 14;
/// From here on there is room for a chart.
const CHART_HEIGHT_MIN: u16 = 20;

/// Colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Palette {
    colours: bool,
}

impl Palette {
    /// None if NO_COLOR is set to something (no-color.org).
    pub(super) fn of_environment() -> Palette {
        Palette { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    #[cfg(test)]
    fn plain() -> Palette {
        Palette { colours: false }
    }

    fn of(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything that there is room for.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene, palette: Palette, now: Instant) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        // It was larger when the run began.
        let text = vec![head(scene, now), Line::from(short(scene))];
        return frame.render_widget(Paragraph::new(text), area);
    }
    let troubles = troubles(scene);
    // On a low terminal a chart would have no room: the figures come first.
    let low_screen = area.height < CHART_HEIGHT_MIN;
    let bottom_min = if low_screen { 4 } else { 5 };
    let bottom = (troubles.len() as u16 + 2).clamp(bottom_min, (area.height / 3).max(bottom_min));
    let rows = [Constraint::Length(1), Constraint::Length(6), Constraint::Min(0), Constraint::Length(bottom)];
    let [top, figures, latency, low] = Layout::vertical(rows).areas(area);
    draw_head(frame, top, scene, palette, now);
    let [left, right] = Layout::horizontal([Constraint::Length(30), Constraint::Min(0)]).areas(figures);
    frame.render_widget(
        Paragraph::new(connections(scene, palette)).block(Block::bordered().title(" connections ")),
        left,
    );
    draw_rates(frame, right, scene, palette);
    if low_screen {
        draw_latency_in_words(frame, latency, scene);
    } else {
        let thresholds = (scene.standings.len() as u16 + 2).min(latency.height / 3);
        let thresholds = if scene.standings.is_empty() { 0 } else { thresholds };
        let [latency, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(thresholds)]).areas(latency);
        draw_latency(frame, latency, scene, palette);
        draw_thresholds(frame, below, scene, palette);
    }
    let [left, right] = Layout::horizontal([Constraint::Length(30), Constraint::Min(0)]).areas(low);
    frame.render_widget(Paragraph::new(machines(scene)).block(Block::bordered().title(" machines ")), left);
    let style = if scene.tally.errors > 0 { palette.of(Color::Red) } else { Style::new() };
    let block = Block::bordered().title(" errors, by code ");
    frame.render_widget(Paragraph::new(troubles).style(style).block(block), right);
}

fn head(scene: &Scene, now: Instant) -> Line<'static> {
    let elapsed = now.saturating_duration_since(scene.began).as_secs_f64();
    let left = match (scene.waiting(), scene.left(now)) {
        _ if scene.ending => ", ending: what is under way still arrives".to_owned(),
        (Some(waiting), _) => format!(": {waiting}"),
        (None, Some(left)) => format!(", {:.0} s left", left.as_secs_f64().ceil()),
        (None, None) => String::new(),
    };
    Line::from(format!("{elapsed:.0} s  {}{left}", scene.phase))
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette, now: Instant) {
    let bold = palette.of(Color::Cyan).add_modifier(Modifier::BOLD);
    let mut line = head(scene, now);
    line.spans.insert(0, Span::styled(format!("{}  ", scene.title), bold));
    frame.render_widget(Paragraph::new(line), area);
    if !scene.ending {
        frame.render_widget(Paragraph::new(" q ends the run ").alignment(Alignment::Right), area);
    }
}

/// For a terminal that has become too small.
fn short(scene: &Scene) -> String {
    let p99 = scene.newest().map_or(0, |point| point.latency.p99);
    format!("{}/{} conn, p99 {}, {} errors", scene.tally.connections, scene.wanted, human_us(p99), scene.tally.errors)
}

fn connections(scene: &Scene, palette: Palette) -> Vec<Line<'static>> {
    let tally = &scene.tally;
    let row = |name: &str, value: String| Line::from(format!(" {name:<14}{value:>12} "));
    let all = tally.connections >= scene.wanted as u64;
    vec![
        row("signed in", format!("{} of {}", tally.connections, scene.wanted)).style(if all {
            palette.of(Color::Green)
        } else {
            palette.of(Color::Yellow)
        }),
        row("connecting", tally.connecting.to_string()),
        row("closed unasked", tally.closed.to_string()),
        row("came back", tally.reconnects.to_string()),
    ]
}

/// Reads a figure of a point.
type Pick = fn(&Point) -> u64;

fn draw_rates(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let (unanswered, undelivered) = scene.in_flight();
    let title = match area.width {
        0..60 => format!(" per second, {} in flight ", unanswered + undelivered),
        _ => format!(" per second; in flight: {unanswered} unanswered, {undelivered} undelivered "),
    };
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let messages = scene.tally.sent > 0 || scene.tally.owed > 0;
    let last: (&str, Pick) =
        if messages { ("delivered", |point| point.delivered) } else { ("pongs", |point| point.pongs) };
    let rates: [(&str, Pick); 4] =
        [("planned", |point| point.planned), ("sent", |point| point.sent), ("accepted", |point| point.accepted), last];
    for ((name, pick), row) in rates.into_iter().zip(inner.rows()) {
        let rate = |point: &Point| (pick(point) as f64 / point.seconds.max(f64::MIN_POSITIVE)).round() as u64;
        let [label, line] = Layout::horizontal([Constraint::Length(21), Constraint::Min(0)]).areas(row);
        let newest = scene.newest().map_or(0, rate);
        frame.render_widget(Paragraph::new(format!(" {name:<9}{newest:>10} ")), label);
        let points = scene.timeline.points();
        let shown = &points[points.len().saturating_sub(line.width.into())..];
        frame.render_widget(Sparkline::default().data(shown.iter().map(rate)).style(palette.of(Color::Cyan)), line);
    }
}

/// The newest percentiles, and how many thresholds are met, where there is no room for more.
fn draw_latency_in_words(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let measured = scene.timeline.points().iter().rfind(|point| point.latency.count > 0);
    let newest = measured.map(|point| point.latency).unwrap_or_default();
    let figures = [("p50", newest.p50), ("p99", newest.p99), ("p99.9", newest.p999), ("max", newest.max)];
    let text = match scene.measure {
        "" => " nothing was timed yet".to_owned(),
        _ => figures.map(|(name, us)| format!(" {name} {}", human_us(us))).join(" "),
    };
    let title = if scene.measure.is_empty() { " latency ".to_owned() } else { format!(" {} latency ", scene.measure) };
    let mut block = Block::bordered().title(title);
    if !scene.standings.is_empty() {
        let count = |wanted: Option<bool>| {
            let is_wanted = |standing: &&Standing| standing.found.as_ref().map(|(_, met)| *met) == wanted;
            scene.standings.iter().filter(is_wanted).count()
        };
        let (missed, met, open) = (count(Some(false)), count(Some(true)), count(None));
        block = block.title_bottom(format!(" thresholds: {missed} missed, {met} met, {open} open "));
    }
    frame.render_widget(Paragraph::new(text).block(block), area);
}

/// States of the thresholds, those that are missed first.
fn draw_thresholds(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let mut standings: Vec<&Standing> = scene.standings.iter().collect();
    standings.sort_by_key(|standing| standing.found.as_ref().map_or(1, |(_, met)| if *met { 2 } else { 0 }));
    let line = |standing: &Standing| match &standing.found {
        Some((found, true)) => Line::from(format!(" met     {} ({found})", standing.condition)),
        Some((found, false)) => {
            Line::from(format!(" missed  {} ({found})", standing.condition)).style(palette.of(Color::Red))
        }
        None => Line::from(format!(" open    {}", standing.condition)),
    };
    let lines: Vec<Line<'_>> = standings.into_iter().map(line).collect();
    let block = Block::bordered().title(" thresholds: the run fails if ");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Percentiles over the whole run, by factors of ten.
fn draw_latency(frame: &mut Frame<'_>, area: Rect, scene: &Scene, palette: Palette) {
    let measured: Vec<&Point> = scene.timeline.points().iter().filter(|point| point.latency.count > 0).collect();
    let newest = measured.last().map(|point| point.latency).unwrap_or_default();
    let title = match scene.measure {
        "" => " latency ".to_owned(),
        measure => format!(
            " {measure} latency: p50 {}, p99 {}, p99.9 {}, max {} ",
            human_us(newest.p50),
            human_us(newest.p99),
            human_us(newest.p999),
            human_us(newest.max)
        ),
    };
    let line = |pick: fn(&Point) -> u64| -> Vec<(f64, f64)> {
        measured.iter().map(|point| (point.at, (pick(point).max(1) as f64).log10())).collect()
    };
    let lines = [line(|point| point.latency.max), line(|point| point.latency.p99), line(|point| point.latency.p50)];
    let values = || lines.iter().flatten().map(|(_, y)| *y);
    let low = values().reduce(f64::min).unwrap_or(0.0).floor();
    let high = values().reduce(f64::max).unwrap_or(3.0).ceil().max(low + 1.0);
    let end = scene.newest().map_or(1.0, |point| point.at).max(1.0);
    // Without colours the marks tell the lines apart.
    let looks = [
        ("max", Marker::Dot, Color::Red),
        ("p99", Marker::Braille, Color::Yellow),
        ("p50", Marker::Block, Color::Green),
    ];
    let datasets = lines.iter().zip(looks).map(|(points, (name, marker, colour))| {
        let set = Dataset::default().name(name).marker(marker).style(palette.of(colour)).data(points);
        set.graph_type(GraphType::Line)
    });
    let y_labels = ticks(low as i32, high as i32, area.height);
    let x_labels = ["0 s".to_owned(), format!("{:.0} s", end / 2.0), format!("{end:.0} s")];
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title))
        .x_axis(Axis::default().bounds([0.0, end]).labels(x_labels))
        .y_axis(Axis::default().bounds([low, high]).labels(y_labels))
        .legend_position(Some(LegendPosition::TopLeft))
        .hidden_legend_constraints((Constraint::Percentage(40), Constraint::Percentage(60)));
    frame.render_widget(chart, area);
}

/// Powers of ten, as many as fit; the first and the last in any case.
fn ticks(low: i32, high: i32, height: u16) -> Vec<String> {
    let all = (low..=high).map(|power| human_us(10u64.saturating_pow(power.max(0) as u32)).replace(".00 ", " "));
    let all: Vec<String> = all.collect();
    if all.len() * 2 > usize::from(height) { vec![all[0].clone(), all[all.len() - 1].clone()] } else { all }
}

fn machines(scene: &Scene) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(Line::from(format!(" {name:<10}{value:>16} ")));
    let newest = scene.newest();
    let driver = newest.map_or(0.0, |point| point.driver_cores);
    row("tester CPU", format!("{driver:.2} of {}", scene.cores));
    match newest.and_then(|point| point.gateway_cores) {
        Some(cores) => row("gateway", format!("{cores:.2} cores")),
        None => row("gateway", "not known".to_owned()),
    }
    if let Some(bytes) = newest.and_then(|point| point.gateway_bytes) {
        row("its memory", format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
    }
    if let Some(queued) = scene.live.queued {
        row("it queues", format!("{queued:.0}, {:.0} B", scene.live.queued_bytes.unwrap_or(0.0)));
    }
    rows
}

/// Most frequent first within their kind.
fn troubles(scene: &Scene) -> Vec<Line<'static>> {
    let troubles = &scene.troubles;
    let coded = |what: &'static str, codes: &std::collections::BTreeMap<u16, u64>| {
        let text = |(code, count): (&u16, &u64)| match code {
            0 => format!(" {count} x {what} without a code"),
            code => format!(" {count} x {what} with {code}"),
        };
        codes.iter().map(text).collect::<Vec<_>>()
    };
    let mut errors: Vec<_> = troubles.all_errors().into_iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let errors = errors.into_iter().map(|(kind, count)| format!(" {count} x {kind}"));
    let all = coded("closed", &troubles.closed).into_iter().chain(coded("refused", &troubles.refused)).chain(errors);
    let lines: Vec<Line<'static>> = all.map(Line::from).collect();
    if lines.is_empty() { vec![Line::from(" none")] } else { lines }
}

#[cfg(test)]
mod tests;
