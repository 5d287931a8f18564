//! The retry budget of an upstream: retries may be at most a share of requests, so that a backend in trouble is not
//! buried under them. Counted in thousandths of a retry.

use std::sync::atomic::{AtomicU64, Ordering};

const ONE: u64 = 1000;
/// Retries that a quiet upstream may make at once.
const RESERVE: u64 = 10 * ONE;

/// The budget, shared by all workers.
#[derive(Debug)]
pub struct Budget {
    share: u64,
    left: AtomicU64,
}

impl Budget {
    /// A budget of this share of requests; 0.1 is a tenth. A share of 0 allows no retry.
    pub fn new(share: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=1000 before"
        )]
        let share = (share.clamp(0.0, 1.0) * 1000.0) as u64;
        Self {
            share,
            left: AtomicU64::new(if share == 0 { 0 } else { RESERVE }),
        }
    }

    /// A request was made.
    pub fn earn(&self) {
        let left = self.left.load(Ordering::Relaxed);
        if left < RESERVE && self.share > 0 {
            // Lost updates make the budget smaller, never larger.
            self.left
                .store((left + self.share).min(RESERVE), Ordering::Relaxed);
        }
    }

    /// Takes one retry out of the budget, if one is left.
    pub fn spend(&self) -> bool {
        self.left
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| {
                left.checked_sub(ONE)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_one_retry_in_ten_requests() {
        let budget = Budget::new(0.1);
        (0..10).for_each(|_| assert!(budget.spend()));
        assert!(!budget.spend());
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend());
        assert!(!budget.spend());
    }

    #[test]
    fn no_share_is_no_retry() {
        let budget = Budget::new(0.0);
        budget.earn();
        assert!(!budget.spend());
    }
}
