//! Medians and tails of small samples.

/// Measurements of one kind.
#[derive(Clone, Default)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    pub(super) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that a share `q` of the sample does not exceed (nearest rank).
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// A row of a Markdown table.
    pub(super) fn row(&self, name: &str) -> String {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| self.quantile(q));
        format!("| {name} | {p50:.3} | {p90:.3} | {p99:.3} |")
    }
}

/// The head of such a table.
pub(super) const HEAD: &str = "| | p50 | p90 | p99 |\n|---|--:|--:|--:|";

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let sample = Sample::new((1..=100).rev().map(f64::from).collect());
        assert_eq!([0.5, 0.99, 1.0].map(|q| sample.quantile(q)), [50.0, 99.0, 100.0]);
    }
}
