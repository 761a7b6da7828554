//! `doctor`: what may go wrong.

use redstart::doctor::{DoctorReport, Severity};

use crate::args::DoctorArgs;
use crate::console::{Colour, Console};
use crate::failure::{FAILED, Failure};
use crate::settings::Settings;

pub(super) async fn run(
    args: &DoctorArgs,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let doctor = settings.builder()?.doctor().map_err(Failure::of_settings)?;
    let diagnosis = doctor.with_stuck_after(args.stuck_after).run().await;
    if console.is_json() {
        console.json(&diagnosis)?;
    } else {
        tell(&diagnosis, console)?;
    }
    let bearable = if args.strict {
        Severity::Unknown
    } else {
        Severity::Warning
    };
    if diagnosis.severity > bearable {
        return Err(Failure::Said(FAILED));
    }
    Ok(())
}

fn tell(diagnosis: &DoctorReport, console: &mut Console<'_>) -> Result<(), Failure> {
    for finding in &diagnosis.findings {
        let colour = match finding.severity {
            Severity::Ok => Colour::Green,
            Severity::Problem => Colour::Red,
            _ => Colour::Yellow,
        };
        let level = console.paint(colour, &format!("{:<8}", finding.severity.as_str()));
        let lead = format!("{level} {:<12} ", finding.check);
        console.hanging(&lead, 22, &finding.what)?;
        for (name, text) in [("why", &finding.why), ("do", &finding.advice)] {
            if !text.is_empty() {
                let lead = format!("{:22}{:<5}", "", format!("{name}:"));
                console.hanging(&lead, 27, text)?;
            }
        }
    }
    Ok(())
}
