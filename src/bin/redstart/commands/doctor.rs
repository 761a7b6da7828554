//! `doctor`: problems of the server and the namespace.

use redstart::doctor::{DoctorReport, Severity};

use crate::args::DoctorArgs;
use crate::failure::{FAILED, Failure, written};
use crate::settings::Settings;
use crate::terminal::{Colour, Terminal};

pub(super) async fn run(
    args: &DoctorArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let doctor = settings.builder()?.doctor().map_err(Failure::of_settings)?;
    let mut doctor = doctor.with_stuck_after(args.stuck_after);
    if let Some(long) = args.longest_pending {
        doctor = doctor.with_longest_pending(long);
    }
    let report = doctor.run().await;
    let told = if terminal.is_json() {
        terminal.json(&report)
    } else {
        render(&report, terminal)
    };
    let tolerated = if args.strict {
        Severity::Unknown
    } else {
        Severity::Warning
    };
    let ended = if report.severity > tolerated {
        Err(Failure::Said(FAILED))
    } else {
        Ok(())
    };
    written(told, ended)
}

fn render(report: &DoctorReport, terminal: &mut Terminal<'_>) -> std::io::Result<()> {
    for finding in &report.findings {
        let colour = match finding.severity {
            Severity::Ok => Colour::Green,
            Severity::Problem => Colour::Red,
            _ => Colour::Yellow,
        };
        let level = terminal.paint(colour, &format!("{:<8}", finding.severity.as_str()));
        let lead = format!("{level} {:<12} ", finding.check);
        terminal.hanging(&lead, 22, &finding.what)?;
        for (name, text) in [("why", &finding.why), ("fix", &finding.advice)] {
            if !text.is_empty() {
                let lead = format!("{:22}{:<5}", "", format!("{name}:"));
                terminal.hanging(&lead, 27, text)?;
            }
        }
    }
    Ok(())
}
