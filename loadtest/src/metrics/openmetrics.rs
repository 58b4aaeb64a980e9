//! Reads the OpenMetrics text format, version 1, and the older Prometheus text format, which differs in little.
//!
//! Timestamps and exemplars are checked for their form and left out.

/// Samples of one name, with what is said about them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Family {
    /// Without the suffixes of its samples; with `_total` in the older format.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) help: String,
    pub(super) samples: Vec<Sample>,
}

/// How samples of a family are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Nothing was said, or something that is not summarized here.
    Other,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    /// In the order in which they stand.
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

/// Reads a whole text. The error names the line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Family>, String> {
    let mut families: Vec<Family> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line == "# EOF" {
            break;
        }
        let read = match line.strip_prefix('#') {
            Some(comment) => describe(&mut families, comment),
            None if line.trim().is_empty() => Ok(()),
            None => sample(line).map(|sample| family_of(&mut families, &sample).samples.push(sample)),
        };
        read.map_err(|error| format!("line {}: {error}", number + 1))?;
    }
    Ok(families)
}

/// `# TYPE name kind` and `# HELP name text`; other comments say nothing.
fn describe(families: &mut Vec<Family>, comment: &str) -> Result<(), String> {
    let mut words = comment.trim_start().splitn(3, ' ');
    let (keyword, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match keyword {
        Some("TYPE") => {
            family(families, name).kind = match rest.trim() {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                "" => return Err(format!("# TYPE {name} names no type")),
                _ => Kind::Other,
            }
        }
        Some("HELP") => family(families, name).help = unescape(rest)?,
        _ => {}
    }
    Ok(())
}

/// The family of a name, made if it is new. What belongs together stands together, so the last one is asked first.
fn family<'a>(families: &'a mut Vec<Family>, name: &str) -> &'a mut Family {
    let found = families.iter().rposition(|family| family.name == name);
    let index = found.unwrap_or_else(|| {
        families.push(Family { name: name.to_owned(), kind: Kind::Other, help: String::new(), samples: Vec::new() });
        families.len() - 1
    });
    &mut families[index]
}

const SUFFIXES: [&str; 8] = ["_total", "_created", "_bucket", "_count", "_sum", "_info", "_gcount", "_gsum"];

fn family_of<'a>(families: &'a mut Vec<Family>, sample: &Sample) -> &'a mut Family {
    let is_known = |name: &str| families.iter().rev().any(|family| family.name == name);
    let stems = SUFFIXES.iter().filter_map(|suffix| sample.name.strip_suffix(suffix));
    let name = match is_known(&sample.name) {
        true => sample.name.as_str(),
        false => stems.into_iter().find(|stem| is_known(stem)).unwrap_or(&sample.name),
    };
    family(families, name)
}

/// `name{label="value",...} value [timestamp] [# {...} value [timestamp]]`
fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("\"{line}\" has no value"))?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err(format!("\"{name}\" is not a name"));
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // An exemplar is of no use here, but a text that was cut within one is not whole.
    let (own, exemplar) = rest.split_once(" # ").map_or((rest, None), |(own, exemplar)| (own, Some(exemplar)));
    if let Some(exemplar) = exemplar {
        let inner = exemplar.strip_prefix('{').ok_or_else(|| format!("\"{exemplar}\" is not an exemplar"))?;
        value(self::labels(inner)?.1)?;
    }
    Ok(Sample { name: name.to_owned(), labels, value: value(own)? })
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

type Labels = Vec<(String, String)>;

/// What stands behind `{`, up to and with `}`; and the rest.
fn labels(text: &str) -> Result<(Labels, &str), String> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"").ok_or("a label is not name=\"value\"")?;
        let name = name.trim();
        if !is_name(name) {
            return Err(format!("\"{name}\" is not the name of a label"));
        }
        let end = end_of_quoted(quoted).ok_or_else(|| format!("the value of label {name} has no end"))?;
        labels.push((name.to_owned(), unescape(&quoted[..end])?));
        rest = quoted[end + 1..].trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err(format!("behind label {name} stands neither , nor }}")),
        }
    }
}

/// Where the closing quote is.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some(escaped @ ('\\' | '"')) => out.push(escaped),
            other => return Err(format!("\\{} is no escape", other.map_or(String::new(), String::from))),
        }
    }
    Ok(out)
}

/// A value, and maybe a timestamp behind it.
fn value(text: &str) -> Result<f64, String> {
    let mut words = text.split_ascii_whitespace();
    let number = |word: &str| word.parse::<f64>().map_err(|_| format!("\"{word}\" is not a number"));
    let value = number(words.next().ok_or("there is no value")?)?;
    words.next().map_or(Ok(0.0), number)?;
    match words.next() {
        Some(word) => Err(format!("\"{word}\" stands behind value and timestamp")),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_has_samples_then_they_are_gathered() {
        let text = "# HELP http_requests All of \\\\them\\n.\n# TYPE http_requests counter\n\
            http_requests_total{code=\"200\",path=\"/a\\\"b\\\\c\\nd\"} 1027 1395066363.5\n\
            http_requests_created{code=\"200\"} 1.5e9\n# UNIT x seconds\n\
            # TYPE seconds histogram\nseconds_bucket{le=\"0.1\"} 8 # {trace_id=\"a # b\"} 0.054 1.6e9\n\
            seconds_bucket{le=\"+Inf\"} 9\nseconds_sum 0.7\nseconds_count 9\n\
            # TYPE up gauge\nup -Inf\nlonely{ } NaN\n# EOF\nnothing is read behind the end";
        let families = parse(text).unwrap();
        let names: Vec<_> = families.iter().map(|f| (f.name.as_str(), f.kind, f.samples.len())).collect();
        let wanted = [
            ("http_requests", Kind::Counter, 2),
            ("seconds", Kind::Histogram, 4),
            ("up", Kind::Gauge, 1),
            ("lonely", Kind::Other, 1),
        ];
        assert_eq!(names, wanted);
        assert_eq!(families[0].help, "All of \\them\n.");
        let first = &families[0].samples[0];
        assert_eq!(first.labels[1], ("path".to_owned(), "/a\"b\\c\nd".to_owned()));
        assert_eq!((first.value, families[1].samples[0].value), (1027.0, 8.0));
        assert_eq!(families[2].samples[0].value, f64::NEG_INFINITY);
        assert!(families[3].samples[0].value.is_nan());
    }

    #[test]
    fn type_names_the_counter_in_full_then_its_samples_belong_to_it() {
        let families = parse("# TYPE a_total counter\na_total 3\n# TYPE a_total_seen gauge\na_total_seen 1\n").unwrap();
        assert_eq!(families.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a_total", "a_total_seen"]);
        assert_eq!(families[0].samples.len(), 1);
    }

    #[test]
    fn line_is_wrong_then_the_error_names_it() {
        for (text, says) in [
            ("a 1\nb", "line 2: \"b\" has no value"),
            ("<html> x", "\"<html>\" is not a name"),
            ("a one", "\"one\" is not a number"),
            ("a 1 2 3", "\"3\" stands behind"),
            ("a{b=\"c} 1", "label b has no end"),
            ("a{b=c} 1", "name=\"value\""),
            ("a{b=\"c\" d=\"e\"} 1", "neither , nor }"),
            ("a{b=\"\\t\"} 1", "\\t is no escape"),
            ("a{9=\"\"} 1", "\"9\" is not the name of a label"),
            ("a 1 # {b=\"c", "label b has no end"),
            ("# TYPE a", "names no type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
