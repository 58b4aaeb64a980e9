//! The verdict as JUnit's XML, which CI services show: one case for each promise and each threshold.

use super::Report;
use crate::xml::escape;

/// A promise, and what broke it.
struct Case {
    name: String,
    broken: Option<String>,
}

impl Report {
    /// See the module.
    pub(crate) fn junit(&self) -> String {
        let load = self.load.get("scenario").and_then(|name| name.as_str()).unwrap_or("run");
        let cases = self.cases();
        let failures = cases.iter().filter(|case| case.broken.is_some()).count();
        let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\"", cases.len());
        let began = self.began.map(|began| format!(" timestamp=\"{}\"", humantime::format_rfc3339_seconds(began)));
        let mut out = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n\
             <testsuite name=\"ringgate-loadtest {load}\" {counts} time=\"{:.3}\"{}>\n",
            self.seconds,
            began.unwrap_or_default()
        );
        for Case { name, broken } in &cases {
            let head = format!("<testcase classname=\"ringgate-loadtest.{load}\" name=\"{}\"", escape(name));
            // The run is what takes time, not one of its verdicts.
            out += &match broken {
                None => format!("{head} time=\"0\"/>\n"),
                Some(broken) => {
                    let broken = escape(broken);
                    format!("{head} time=\"0\"><failure message=\"{broken}\">{broken}</failure></testcase>\n")
                }
            };
        }
        let table: String = self.table().lines().map(|line| escape(line) + "\n").collect();
        out + &format!("<system-out>{table}</system-out>\n</testsuite>\n</testsuites>\n")
    }

    fn cases(&self) -> Vec<Case> {
        let ended = self.failure.clone().or_else(|| self.interruption());
        let mut cases = vec![Case { name: "the run gets to its end".to_owned(), broken: ended }];
        let errors: Vec<String> = self.errors.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let broken = (!errors.is_empty()).then(|| errors.join("; "));
        cases.push(Case { name: "no errors".to_owned(), broken });
        let limit = self.driver_limit().filter(|_| self.driver_fails());
        let broken = limit.map(|limit| format!("{}; {}", limit.what, limit.so));
        cases.push(Case { name: "the load tester is not the limit".to_owned(), broken });
        let failing: Vec<&str> = self.faults().map(|(what, _)| what).collect();
        cases.extend(self.counted().into_iter().map(|(what, count, _)| Case {
            name: format!("no {what}"),
            broken: failing.contains(&what).then(|| format!("{count} {what}")),
        }));
        cases.extend(self.verdicts.iter().map(|verdict| Case {
            name: format!("not {}", verdict.condition),
            broken: (!verdict.met).then(|| verdict.found.clone()),
        }));
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_fails_the_run_then_its_case_fails_and_no_other() {
        let mut report = Report::default();
        report.load.insert("scenario".to_owned(), "p2p".into());
        report.balance.lost = 3;
        report.errors.insert("a \"<word>\"".to_owned(), 2);
        report.verdicts = ["lost>0", "lost>5"].map(|text| report.judge(&text.parse().unwrap())).into();
        let text = report.junit();
        let document = roxmltree::Document::parse(&text).unwrap();
        let suite = document.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        let cases: Vec<_> = suite.children().filter(|node| node.has_tag_name("testcase")).collect();
        assert_eq!(suite.attribute("tests"), Some(cases.len().to_string().as_str()));
        assert_eq!(suite.attribute("failures"), Some("3"));
        let failed = cases.iter().filter_map(|case| {
            let failure = case.children().find(|node| node.has_tag_name("failure"))?;
            Some((case.attribute("name")?, failure.attribute("message")?))
        });
        let wanted = [
            ("no errors", "2 x a \"<word>\""),
            ("no accepted messages lost", "3 accepted messages lost"),
            ("not lost>0", "lost was 3"),
        ];
        assert_eq!(failed.collect::<Vec<_>>(), wanted);
        assert!(
            suite.descendants().any(|node| node.has_tag_name("system-out") && node.text().unwrap().contains("lost"))
        );
        assert!(Report::default().junit().contains("failures=\"0\""));
    }
}
