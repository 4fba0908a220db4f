//! Words and tables: the figures as Markdown.

use std::fmt::Write as _;

/// One benchmark's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its title.
    pub title: &'static str,
    /// What was done, in a sentence or two.
    pub method: String,
    /// The names of the columns.
    pub columns: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// What was wanted, and whether it was reached.
    pub targets: Vec<Target>,
}

/// A figure that must not be larger than another.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Of what, with its unit.
    pub what: String,
    /// What was measured.
    pub reached: f64,
    /// What it may be.
    pub wanted: f64,
}

impl Target {
    /// Whether it was reached.
    #[must_use]
    pub fn met(&self) -> bool {
        self.reached <= self.wanted
    }
}

/// The whole report.
#[must_use]
pub fn markdown(environment: &[(String, String)], quick: bool, sections: &[Section]) -> String {
    let mut text = String::from(
        "# Benchmarks: the REST API\n\nMade by `cargo run --release -p benches -- api`; do not edit.\n\n",
    );
    if quick {
        text.push_str("**This was a smoke test (`--quick`): the figures show that the cases run, not what is reached.**\n\n");
    }
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in environment {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    for section in sections {
        let _ = writeln!(text, "\n## {}\n\n{}\n", section.title, section.method);
        let _ = writeln!(text, "| {} |", section.columns.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(section.columns.len()));
        for row in &section.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text.push('\n');
        for target in &section.targets {
            let _ = writeln!(text, "- {}", sentence(target));
        }
    }
    text
}

fn sentence(target: &Target) -> String {
    let Target {
        what,
        reached,
        wanted,
    } = target;
    if target.met() {
        format!("Target: {what}: at most {wanted}. **Met**: {reached:.2}.")
    } else {
        let over = (reached / wanted - 1.0) * 100.0;
        format!("Target: {what}: at most {wanted}. **Missed by {over:.0} %**: {reached:.2}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_what_they_should_be() {
        let target = |reached| Target {
            what: "µs".into(),
            reached,
            wanted: 100.0,
        };
        let section = Section {
            title: "Reads",
            method: "How.".into(),
            columns: vec!["", "CPU µs"],
            rows: vec![vec!["a".into(), "50".into()]],
            targets: vec![target(50.0), target(120.0)],
        };
        let text = markdown(&[("kernel".into(), "6".into())], true, &[section]);
        for expected in [
            "smoke test",
            "| kernel | 6 |",
            "## Reads\n\nHow.\n\n|  | CPU µs |\n|---|---|\n| a | 50 |\n",
            "- Target: µs: at most 100. **Met**: 50.00.",
            "- Target: µs: at most 100. **Missed by 20 %**: 120.00.",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }
}
