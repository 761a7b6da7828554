//! Small pictures as SVG. Their shapes stand in attributes, because the policy forbids inline styles.

use maud::{Markup, html};

use super::format::{counted, number};

const WIDTH: u64 = 120;
const HEIGHT: u64 = 24;

/// A line of values, the oldest first, each at its place from the right end.
pub(in crate::console) fn sparkline(values: &[u64], places: usize, name: &str) -> Markup {
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else {
        return html! {};
    };
    let step = WIDTH as f64 / (places.max(2) - 1) as f64;
    let begin = WIDTH as f64 - step * values.len().saturating_sub(1) as f64;
    let height = |value: u64| {
        let share = value as f64 / (*most).max(1) as f64;
        (HEIGHT - 2) as f64 - share * (HEIGHT - 4) as f64
    };
    // One value alone has no line: it gets a short one.
    let values = if let [one] = values {
        &[*one, *one]
    } else {
        values
    };
    let begin = begin.min(WIDTH as f64 - step);
    let points = values.iter().enumerate().map(|(at, value)| {
        let x = begin + step * at as f64;
        format!("{x:.1},{:.1}", height(*value))
    });
    let points = points.collect::<Vec<_>>().join(" ");
    let label = format!("{name}: between {} and {}", number(*least), number(*most));
    html! {
        svg.spark role="img" aria-label=(label) width=(WIDTH) height=(HEIGHT)
            viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
            title { (label) }
            polyline points=(points) {}
        }
    }
}

/// A bar for each value, the oldest first, with its name and count as its title.
pub(in crate::console) fn bars(values: &[(String, u64)], name: &str) -> Markup {
    let most = values.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let total: u64 = values.iter().map(|(_, count)| *count).sum();
    let (wide, tall) = (14, 56);
    let label = format!("{name}: {} in total", number(total));
    html! {
        svg.bars role="img" aria-label=(label) width=(wide * values.len()) height=(tall)
            viewBox={ "0 0 " (wide * values.len()) " " (tall) } {
            title { (label) }
            @for (at, (hour, count)) in values.iter().enumerate() {
                @let share = if most == 0 { 0 } else { (count * (tall - 4)).div_ceil(most) };
                g {
                    title { (hour) ": " (counted(*count, "dead letter", "dead letters")) }
                    rect.slot x=(at * wide) y="0" width=(wide - 2) height=(tall) {}
                    @if *count > 0 {
                        rect x=(at * wide) y=(tall - share) width=(wide - 2) height=(share) {}
                    }
                }
            }
        }
    }
}

/// How much of a limit is used.
pub(in crate::console) fn meter(used: u64, limit: u64, name: &str) -> Markup {
    html! {
        meter min="0" max=(limit) high=(limit / 10 * 8) optimum="0" value=(used.min(limit))
            aria-label=(name) title={ (number(used)) " of " (number(limit)) } {
            (number(used)) " of " (number(limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_ends_at_the_right_and_names_its_bounds() {
        let svg = sparkline(&[0, 5, 10], 61, "lag").into_string();
        assert!(
            svg.contains("points=\"116.0,22.0 118.0,12.0 120.0,2.0\""),
            "{svg}"
        );
        assert!(svg.contains("lag: between 0 and 10"), "{svg}");
        assert_eq!(sparkline(&[], 61, "lag").into_string(), "");
    }

    #[test]
    fn a_count_above_zero_has_a_bar_that_shows() {
        let values = [
            ("a".to_owned(), 1),
            ("b".to_owned(), 1_000_000),
            ("c".to_owned(), 0),
        ];
        let svg = bars(&values, "died").into_string();
        assert!(svg.contains("y=\"55\" width=\"12\" height=\"1\""), "{svg}");
        assert_eq!(svg.matches("class=\"slot\"").count(), 3);
        assert_eq!(svg.matches("<rect").count(), 5);
    }
}
