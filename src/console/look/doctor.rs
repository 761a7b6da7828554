//! The doctor's findings, the worst first.

use axum::response::{IntoResponse as _, Response};
use maud::html;

use crate::console::page::{Command, Page, safe};
use crate::console::visit::Visit;
use crate::operate::doctor::Severity;

pub(in crate::console) async fn page(visit: Visit) -> Response {
    let report = visit.app.poll.examine().await;
    let mut findings: Vec<_> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let body = html! {
        p.soft { "The doctor checks the server, the namespace and every group. Its report is at most 15 "
            "seconds old." }
        div.scroll tabindex="0" role="region" aria-label="Findings" {
            table {
                caption { "Findings, the worst first" }
                thead { tr {
                    th scope="col" { "Severity" } th scope="col" { "Check" } th scope="col" { "Finding" }
                } }
                tbody {
                    @for finding in findings {
                        tr {
                            td { span class={ "badge " (kind(finding.severity)) } {
                                (finding.severity.as_str())
                            } }
                            td { (finding.check) }
                            td.wrap {
                                (safe(&finding.what))
                                @if !finding.why.is_empty() { p.soft { (safe(&finding.why)) } }
                                @if !finding.advice.is_empty() {
                                    p { strong { "To do: " } (safe(&finding.advice)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        (Command::new(&["doctor"]).show())
    };
    Page::new(&visit, "Doctor", body).into_response()
}

fn kind(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "good",
        Severity::Unknown => "",
        Severity::Warning => "warn",
        Severity::Problem => "bad",
    }
}
