//! Fork, exit, signals and children: how the agent lives and ends with its host, and goes on below it.

mod children;
mod exit;
mod fork;
mod signals;
mod workers;

pub use children::hide_folder;
pub use exit::{multiprocessing_child, register as register_exit};
pub use fork::{hook as around_fork, register as register_fork};
pub use signals::{die as after_sigterm_flush, register as register_signals};
pub use workers::register as register_workers;
