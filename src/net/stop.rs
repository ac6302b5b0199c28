//! How everything that waits is told to end: one flag that is set once, seen by all who hold its other end.

use tokio::sync::watch;

/// Sets the flag. Dropping it sets it too, so that nothing outlives its owner.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Sees the flag. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A flag that is not set.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Sets the flag, for good.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Another end that sees the flag.
    pub fn watch(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    /// Whether the flag is set.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Ends when the flag is set. Cancel-safe.
    pub async fn stopped(&mut self) {
        // An error says that the stopper is gone, which means the same.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_see_it_and_a_dropped_stopper_stops() {
        let (stopper, mut stop) = channel();
        let mut other = stop.clone();
        assert!(!stop.is_stopped());
        stopper.stop();
        stop.stopped().await;
        other.stopped().await;
        assert!(stopper.watch().is_stopped());

        let (stopper, mut stop) = channel();
        drop(stopper);
        stop.stopped().await;
        assert!(stop.is_stopped());
    }
}
