//! The API's benchmark runs, with the product that `make test` has built; what it reaches is not looked at.

use benches::api::{Amounts, run};

#[test]
fn every_figure_is_measured() {
    let figures = run(&Amounts::quick(), true).unwrap();
    let report = figures.markdown();
    for title in [
        "## Reads",
        "## A large query log",
        "## A crash",
        "## A long list",
        "## A deployment",
    ] {
        assert!(report.contains(title), "no {title:?} in:\n{report}");
    }
    let json = figures.to_json();
    let sections = json["sections"].as_array().unwrap();
    assert!(sections.iter().all(|it| it["rows"][0][0].is_string()));
}
