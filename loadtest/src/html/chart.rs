//! A chart: plain data in, a figure of HTML with inline SVG out.
//!
//! No script. Colours are classes that the page's style sheet fills in, so the same drawing serves light, dark and
//! paper; series differ in their dashes, too. Beside each drawing stand its description and its figures as a table.

use std::fmt::Write;

use super::scale::{Scale, Span};
use super::scrollable;
use crate::xml::escape;

/// What is drawn.
pub(super) struct Chart {
    /// Unique on the page.
    pub(super) id: String,
    /// A few words.
    pub(super) title: String,
    /// One sentence: how to read it.
    pub(super) reading: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Places on the x axis with a name: where phases begin.
    pub(super) marks: Vec<(f64, String)>,
}

/// One direction of a chart.
pub(super) struct Axis {
    /// With its unit.
    pub(super) label: String,
    pub(super) scale: Scale,
    /// How values are written.
    pub(super) format: fn(f64) -> String,
}

/// A line. Where there is no value, it is interrupted.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 46.0;
/// Average width of a character.
const CHARACTER: f64 = 6.8;
/// Values can be pointed at when there are not more of them than this.
const DOTS_MAX: usize = 150;
/// Rows of the table beside a chart.
const ROWS_MAX: usize = 60;

impl Chart {
    /// The figure.
    pub(super) fn figure(&self) -> String {
        let mut out = format!(
            "<figure id=\"{}\"><figcaption><h3>{}</h3><p>{}</p></figcaption>\n",
            escape(&self.id),
            escape(&self.title),
            escape(self.reading)
        );
        if self.values().next().is_none() {
            out += "<p class=\"empty\">Nothing was recorded.</p></figure>\n";
            return out;
        }
        out += &self.svg();
        out += &self.table();
        out += "</figure>\n";
        out
    }

    fn values(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().filter_map(|(x, y)| Some((*x, (*y)?))))
    }

    fn svg(&self) -> String {
        let x = self.x.scale.fit(self.values().map(|(x, _)| x));
        let y = self.y.scale.fit(self.values().map(|(_, y)| y));
        let id = escape(&self.id);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n",
            escape(&self.title),
            escape(&self.description())
        );
        self.draw_axes(&mut out, &x, &y);
        self.draw_marks(&mut out, &x);
        self.draw_legend(&mut out);
        for (index, series) in self.series.iter().enumerate() {
            self.draw_series(&mut out, index, series, &x, &y);
        }
        out += "</svg>\n";
        out
    }

    /// A description for screen readers.
    fn description(&self) -> String {
        let mut out = format!("{} over {}.", self.y.label, self.x.label);
        for series in &self.series {
            let values = || series.points.iter().filter_map(|(_, y)| *y);
            let (low, high) = (values().reduce(f64::min), values().reduce(f64::max));
            if let (Some(low), Some(high), Some(last)) = (low, high, values().next_back()) {
                let [low, high, last] = [low, high, last].map(self.y.format);
                let _ = write!(out, " {}: between {low} and {high}, {last} at the end.", series.name);
            }
        }
        out
    }

    fn draw_axes(&self, out: &mut String, x: &Span, y: &Span) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &y.ticks {
            let at = down(y.place(*tick));
            let text = escape(&(self.y.format)(*tick));
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 8.0, at + 4.0);
        }
        for tick in &x.ticks {
            let at = across(x.place(*tick));
            let text = escape(&(self.x.format)(*tick));
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {bottom}v5\"/>");
            let _ =
                writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", bottom + 18.0);
        }
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
        let (middle, low) = ((LEFT + right) / 2.0, HEIGHT - 8.0);
        let label = escape(&self.x.label);
        let _ = writeln!(out, "<text x=\"{middle:.1}\" y=\"{low:.1}\" text-anchor=\"middle\">{label}</text>");
        let (middle, label) = ((TOP + bottom) / 2.0, escape(&self.y.label));
        let _ = writeln!(
            out,
            "<text transform=\"translate(13 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{label}</text>"
        );
    }

    fn draw_marks(&self, out: &mut String, x: &Span) {
        let placed = self.marks.iter().filter_map(|(value, name)| Some((x.place(*value)?, name)));
        let within = placed.filter(|(place, _)| (0.0..=1.0).contains(place));
        let marks: Vec<(f64, &String)> = within.map(|(place, name)| (across(Some(place)), name)).collect();
        for (index, (at, name)) in marks.iter().enumerate() {
            let _ = writeln!(out, "<path class=\"mark\" d=\"M{at:.1} {}V{}\"/>", TOP - 4.0, HEIGHT - BOTTOM);
            // What begins a moment later would be written over it: a phase this short does without its name.
            let end = at + name.chars().count() as f64 * CHARACTER + 8.0;
            let next = marks.get(index + 1).map_or(WIDTH, |(next, _)| *next);
            if end <= next {
                let name = escape(name);
                let _ =
                    writeln!(out, "<text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>", at + 3.0, TOP - 8.0);
            }
        }
    }

    fn draw_legend(&self, out: &mut String) {
        let mut at = LEFT;
        for (index, series) in self.series.iter().enumerate() {
            let _ = writeln!(out, "<path class=\"line s{index}\" d=\"M{at:.1} 14h24\"/>");
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"18\">{}</text>", at + 30.0, escape(&series.name));
            at += 46.0 + series.name.chars().count() as f64 * CHARACTER;
        }
    }

    fn draw_series(&self, out: &mut String, index: usize, series: &Series, x: &Span, y: &Span) {
        let mut path = String::new();
        let mut dots = String::new();
        let mut pen_down = false;
        let mut drawn = 0;
        for (at, value) in &series.points {
            let places = value.and_then(|value| Some((x.place(*at)?, y.place(value)?, value)));
            let Some((right, up, value)) = places else {
                pen_down = false;
                continue;
            };
            let (left, top) = (across(Some(right)), down(Some(up)));
            let _ = write!(path, "{}{left:.1} {top:.1}", if pen_down { 'L' } else { 'M' });
            pen_down = true;
            drawn += 1;
            let text = format!("{}: {} at {}", series.name, (self.y.format)(value), (self.x.format)(*at));
            let _ = writeln!(
                dots,
                "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"2.5\"><title>{}</title></circle>",
                escape(&text)
            );
        }
        let _ = writeln!(out, "<path class=\"line s{index}\" d=\"{path}\"/>");
        if drawn <= DOTS_MAX {
            let _ = writeln!(out, "<g class=\"dots s{index}\">\n{dots}</g>");
        }
    }

    fn table(&self) -> String {
        let longest = self.series.iter().max_by_key(|series| series.points.len());
        let points = longest.map_or(&[][..], |series| &series.points);
        let step = points.len().div_ceil(ROWS_MAX).max(1);
        let summary = if step == 1 { "As a table".to_owned() } else { format!("As a table (one row in {step})") };
        let mut out = format!(
            "<details><summary>{summary}</summary>\n{}<table><thead><tr><th scope=\"col\">{}</th>",
            scrollable(&format!("{}, as a table", self.title)),
            escape(&self.x.label)
        );
        for series in &self.series {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(&series.name));
        }
        out += "</tr></thead><tbody>\n";
        // The end is there in any case.
        let rows = (0..points.len())
            .step_by(step)
            .chain((points.len().saturating_sub(1) % step != 0).then(|| points.len() - 1));
        for (row, (x, _)) in rows.filter_map(|row| Some((row, points.get(row)?))) {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&(self.x.format)(*x)));
            for series in &self.series {
                let value = series.points.get(row).and_then(|(_, y)| *y);
                let _ =
                    write!(out, "<td>{}</td>", value.map_or("-".to_owned(), |value| escape(&(self.y.format)(value))));
            }
            out += "</tr>\n";
        }
        out += "</tbody></table></div></details>\n";
        out
    }
}

/// From a place on the x axis to the drawing. What has no place is not drawn; callers have checked.
fn across(place: Option<f64>) -> f64 {
    LEFT + place.unwrap_or(0.0) * (WIDTH - LEFT - RIGHT)
}

fn down(place: Option<f64>) -> f64 {
    HEIGHT - BOTTOM - place.unwrap_or(0.0) * (HEIGHT - TOP - BOTTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, Option<f64>)]) -> Chart {
        let plain = |value: f64| format!("{value:.0}");
        Chart {
            id: "c".to_owned(),
            title: "A <b> & \"c\"".to_owned(),
            reading: "Up is more.",
            x: Axis { label: "time (s)".to_owned(), scale: Scale::Exact, format: plain },
            y: Axis { label: "things".to_owned(), scale: Scale::Linear, format: plain },
            series: vec![Series { name: "one".to_owned(), points: points.to_vec() }],
            marks: vec![(0.0, "hidden".to_owned()), (0.1, "first".to_owned()), (5.0, "a<b".to_owned())],
        }
    }

    fn parse(figure: &str) -> roxmltree::Document<'_> {
        roxmltree::Document::parse(figure).unwrap_or_else(|error| panic!("{error} in {figure}"))
    }

    #[test]
    fn value_is_missing_then_the_line_breaks() {
        let figure = chart(&[(0.0, Some(0.0)), (5.0, Some(10.0)), (6.0, None), (10.0, Some(5.0))]).figure();
        let document = parse(&figure);
        let line = document.descendants().filter(|node| node.attribute("class") == Some("line s0")).nth(1).unwrap();
        assert_eq!(line.attribute("d").unwrap(), "M74.0 254.0L449.0 48.0M824.0 151.0");
        let text: Vec<_> =
            document.descendants().filter(|node| node.has_tag_name("title")).filter_map(|node| node.text()).collect();
        assert_eq!(text, ["A <b> & \"c\"", "one: 0 at 0", "one: 10 at 5", "one: 5 at 10"]);
        let desc = document.descendants().find(|node| node.has_tag_name("desc")).unwrap().text().unwrap();
        assert_eq!(desc, "things over time (s). one: between 0 and 10, 5 at the end.");
        assert!(figure.contains(">first<") && figure.contains(">a&lt;b<") && !figure.contains(">hidden<"));
    }

    #[test]
    fn chart_has_no_point_or_one_then_it_is_drawn() {
        assert!(parse(&chart(&[]).figure()).descendants().any(|node| node.text() == Some("Nothing was recorded.")));
        assert!(chart(&[(1.0, None)]).figure().contains("Nothing was recorded."));
        let figure = chart(&[(0.0, Some(0.0))]).figure();
        assert_eq!(parse(&figure).descendants().filter(|node| node.has_tag_name("circle")).count(), 1);
        assert!(!figure.contains("NaN") && !figure.contains("inf"));
    }

    #[test]
    fn run_is_long_then_its_table_is_short_and_there_are_no_dots() {
        let points: Vec<_> = (0..1_800).map(|second| (f64::from(second), Some(1.0))).collect();
        let figure = chart(&points).figure();
        let document = parse(&figure);
        let count = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
        assert_eq!((count("tr"), count("circle")), (62, 0));
        assert!(figure.contains("<th scope=\"row\">1799</th>"), "the end is there");
        assert!(figure.contains("one row in 30"));
    }
}
