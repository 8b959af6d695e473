//! The table of a measurement.

use std::fmt::Write;

/// A row for each configuration; the first is what the others are compared with.
pub fn table(unit: &str, titles: &[&str], samples: &[Vec<f64>]) -> String {
    let mut text = format!(
        "| observer | ns/{unit} (median) | ratio to none (median of rounds) | min..max ns |\n\
         |---|---:|---:|---:|\n",
    );
    for (title, costs) in titles.iter().zip(samples) {
        // Round by round, so that a machine that changes its pace changes no ratio.
        let ratios = costs.iter().zip(&samples[0]).map(|(cost, none)| cost / none).collect();
        let (low, high) = costs
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(low, high), cost| (low.min(*cost), high.max(*cost)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {title} | {:.0} | {:.3} | {low:.0}..{high:.0} |",
            median(costs.clone()),
            median(ratios),
        );
    }
    text
}

/// The middle of some values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_middles() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let none = vec![100.0, 200.0, 400.0];
        let twice: Vec<_> = none.iter().map(|cost| cost * 2.0).collect();
        let table = table("packet", &["none", "us"], &[none, twice]);
        assert!(table.contains("| none | 200 | 1.000 | 100..400 |"), "{table}");
        assert!(table.contains("| us | 400 | 2.000 | 200..800 |"), "{table}");
    }
}
