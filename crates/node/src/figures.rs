//! What other parts of the process count, for those who read the hub's metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hub::Hub;
use crate::origin::Figure;

/// Says what somebody has counted so far.
type Counted = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// All who count.
#[derive(Default)]
pub(crate) struct Figures(Mutex<Vec<Counted>>);

impl Figures {
    fn all(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Shows what this says among the hub's metrics, from now on. It must not hold on to the hub.
    pub fn show_figures(&self, counted: impl Fn() -> Vec<Figure> + Send + Sync + 'static) {
        self.figures.all().push(Box::new(counted));
    }

    /// What the origin and all others have counted.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.origin().map(|origin| origin.figures()).unwrap_or_default();
        figures.extend(self.figures.all().iter().flat_map(|counted| counted()));
        figures
    }
}
